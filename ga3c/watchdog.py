"""An end for what the learner itself asks of an environment: code of others, which may never return."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ga3c.descendants import end_command

_SHORTEST_S = 60.0  # for games to be made and played a little, however short a step may be
_LOOK_S = 1.0
_PATIENCE_S = 3.0  # of whoever watches


@contextmanager
def time_limit(timeout_s: float, doing: str, *, quiet: bool = True) -> Iterator[None]:
    """Ends the process with exit code 1 and a sentence if the block has not ended in time.

    No exception could do that: a thread that is inside an environment's code cannot be reached. To be used before
    there is anything to lose.

    Args:
      timeout_s: seconds that the block may take; less than a minute counts as a minute. Time during which the process
        is suspended does not count, nor does time its threads spend waiting for a core that other processes use.
      doing: what it does, as in "making CartPole-v1".
      quiet: if False, and standard error is a terminal, a line says what is going on after a few seconds.
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
                end_command()
                os._exit(1)


class _Cores:
    """How long the threads of this process, but for the one that asks, were on a core, and waited for one."""

    def __init__(self) -> None:
        self._last = self._read()
        self._ran_s = self._waited_s = 0.0

    def own_time_s(self, passed_s: float) -> float:
        """What would have passed if nobody else had used the cores.

        There are two estimates, and the larger one is returned. ``passed_s`` minus all waits is right for threads that
        take turns, such as an environment's and its caller's: they never wait at the same time. Threads that run in
        parallel do, and the sum counts too much; ``passed_s`` times the share of the wanted core time that was granted
        (ran / (ran + waited)) is right for them.
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
