"""Ends the processes that a worker has started, such as the servers and browsers behind a user's environments.

A worker leads a process group of its own, and every process that it starts inherits the worker's process id in the
environment variable ``GA3C_WORKER``: both are used to kill those processes when the worker ends. A process that leaves
the group and clears the variable is adopted by the forkserver, which is a subreaper, and is killed when the forkserver
ends.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from ga3c.user_code import WORKER

_PR_SET_CHILD_SUBREAPER = 36
_adopts = False  # this process is the parent of every orphan among its descendants
_LONGEST_S = 1.0  # for processes to be killed; one that starts others all the time must not hold up the rest


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent ends."""
    global _adopts  # noqa: PLW0603 (of the process)
    _adopts = True
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_command() -> None:
    """Kills whatever is left of the ``ga3c`` command, if this process is one: it would keep a pipe behind it open."""
    if _adopts:
        end_adopted(())


def end_group(worker: int) -> None:
    """Kills whoever is in the process group of a worker that is gone, but not reaped yet: its number is not reused."""
    with contextlib.suppress(OSError):  # the worker was alone, or was killed before it had made its group
        os.killpg(worker, signal.SIGKILL)


def end_adopted(workers: Collection[int], worker: int | None = None) -> None:
    """Kills and reaps adopted children of this process: those that ``worker`` has started, or with None all of them.

    Args:
      workers: children of this process that are not adopted; they stay.
      worker: the process id of a worker that is gone.
    """

    def is_meant(pid: int) -> bool:
        return pid not in workers and (worker is None or _was_started_by(pid, {worker}))

    _end(children, is_meant)
    reap(workers)


def end_started_by(workers: Collection[int]) -> None:
    """Kills every process of this user that one of these workers, which are gone, has started."""
    _end(_processes, lambda pid: _was_started_by(pid, workers))


def reap(workers: Collection[int]) -> None:
    """Takes note of the ends of adopted children, which would stay as zombies."""
    for pid in children():
        if pid not in workers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def children() -> list[int]:
    """Process ids of this process's children; none where the kernel does not list them."""
    found = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError, ValueError):
            found += [int(pid) for pid in (thread / "children").read_text(encoding="ascii").split()]
    return found


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _was_started_by(pid: int, workers: Collection[int]) -> bool:
    with contextlib.suppress(OSError):
        if os.getpgid(pid) in workers:
            return True
        variables = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
        return any(f"{WORKER}={worker}".encode() in variables for worker in workers)
    return False


def _end(candidates: Callable[[], Iterable[int]], is_meant: Callable[[int], bool]) -> None:
    """Again and again until there is none: the children of one that is killed come into sight only then."""
    deadline = time.monotonic() + _LONGEST_S
    while time.monotonic() < deadline:
        alive = [pid for pid in candidates() if is_meant(pid) and not _is_zombie(pid)]
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def _is_zombie(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except (OSError, IndexError):
        return True
