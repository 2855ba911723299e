"""An end for what the learner itself asks of an environment: code of others, which may never return."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SHORTEST_S = 60.0  # for games to be made and played a little, however short a step may be
_LOOK_S = 1.0
_PATIENCE_S = 3.0  # of whoever watches


@contextmanager
def time_limit(timeout_s: float, doing: str, *, quiet: bool = True) -> Iterator[None]:
    """Ends the process with exit code 1 and a sentence if the block has not ended in time.

    No exception could do that: a thread that is inside an environment's code cannot be reached. To be used before
    there is anything to lose.

    Args:
      timeout_s: that the block may take, and a minute at least. What passes while the process is suspended is no time.
      doing: what it does, as in "making CartPole-v1".
      quiet: not to tell a terminal what goes on, if it takes longer than a few seconds.
    """
    done = threading.Event()
    tells = not quiet and sys.stderr.isatty()
    watch = threading.Thread(target=_watch, args=(done, max(timeout_s, _SHORTEST_S), doing, tells), daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()


def _watch(done: threading.Event, limit_s: float, doing: str, tells: bool) -> None:
    passed_s, looked_at = 0.0, time.monotonic()
    while not done.wait(_LOOK_S):
        now = time.monotonic()
        passed_s, looked_at = passed_s + min(now - looked_at, 2 * _LOOK_S), now
        if tells and passed_s >= _PATIENCE_S:
            print(f"ga3c: {doing} goes on; it may take {limit_s:g} s", file=sys.stderr, flush=True)
            tells = False
        if passed_s >= limit_s:
            try:
                print(
                    f"ga3c: {doing} has not ended in {limit_s:g} s; --actor-timeout allows more",
                    file=sys.stderr,
                    flush=True,
                )
            finally:
                os._exit(1)
