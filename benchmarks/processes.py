"""The processes of a running ``ga3c train``, seen from outside."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path


def actors(learner: int) -> list[int]:
    """Process ids of the actors, whose forkserver is the learner's child."""
    return [actor for server in _children(learner) for actor in _children(server)]


def tree(pid: int) -> list[int]:
    """Process ids of a process and all that descend from it."""
    return [pid, *(descendant for child in _children(pid) for descendant in tree(child))]


@contextlib.contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """As under a laptop's lid: a process and all that descend from it stop, and go on after the block."""
    pids = tree(pid)
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, number)


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended, and that its parent has not asked after yet, does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def memory_mb(pid: int, name: str) -> float:
    """``Rss`` or ``Pss`` of a process.

    Raises:
      OSError, ValueError: it has ended, or is about to.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name}:"))
    return round(int(line.split()[1]) / 1024, 1)


def handles_signals(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM, as the command line has from its first lines on."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # It has just ended.
            found += map(int, task.read_text(encoding="utf-8").split())
    return found
