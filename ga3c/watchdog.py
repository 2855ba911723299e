"""An end for what the learner itself asks of an environment: code of others, which may never return."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SHORTEST_S = 60.0  # for games to be made and played a little, however short a step may be
_LOOK_S = 1.0
_PATIENCE_S = 3.0  # of whoever watches


@contextmanager
def time_limit(timeout_s: float, doing: str, *, quiet: bool = True) -> Iterator[None]:
    """Ends the process with exit code 1 and a sentence if the block has not ended in time.

    No exception could do that: a thread that is inside an environment's code cannot be reached. To be used before
    there is anything to lose.

    Args:
      timeout_s: that the block may take, and a minute at least. What passes while the process is suspended is no time,
        nor what its threads wait for a core that others are using.
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
    passed_s, looked_at, cores = 0.0, time.monotonic(), _Cores()
    while not done.wait(_LOOK_S):
        now = time.monotonic()
        passed_s, looked_at = passed_s + min(now - looked_at, 2 * _LOOK_S), now
        if tells and passed_s >= _PATIENCE_S:
            print(f"ga3c: {doing} goes on; it may take {limit_s:g} s", file=sys.stderr, flush=True)
            tells = False
        if cores.own_time_s(passed_s) >= limit_s:
            try:
                print(
                    f"ga3c: {doing} has not ended in {limit_s:g} s; --actor-timeout allows more",
                    file=sys.stderr,
                    flush=True,
                )
            finally:
                os._exit(1)


class _Cores:
    """How long the threads of this process, but for the one that asks, were on a core, and waited for one."""

    def __init__(self) -> None:
        self._last = self._read()
        self._ran_s = self._waited_s = 0.0

    def own_time_s(self, passed_s: float) -> float:
        """What would have passed if nobody else had used the cores.

        Threads that take turns (an environment's and its caller) wait one after the other, so that their waits add up.
        Where several want a core at once that is too much: then it is the share of its wishes that the process got.
        """
        last, self._last = self._last, self._read()
        for thread, (ran_ns, waited_ns) in self._last.items():
            ran_before_ns, waited_before_ns = last.get(thread, (0, 0))
            self._ran_s += 1e-9 * (ran_ns - ran_before_ns)
            self._waited_s += 1e-9 * (waited_ns - waited_before_ns)
        wanted_s = self._ran_s + self._waited_s
        return max(passed_s - self._waited_s, passed_s * (self._ran_s / wanted_s if wanted_s else 1.0))

    def _read(self) -> dict[str, tuple[int, int]]:
        """Nanoseconds of each thread; none where the system does not say."""
        found = {}
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError, ValueError):  # it has just ended
                ran_ns, waited_ns, _ = map(int, (task / "schedstat").read_text(encoding="ascii").split())
                if task.name != str(threading.get_native_id()):
                    found[task.name] = ran_ns, waited_ns
        return found
