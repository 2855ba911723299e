"""What the kernel's scheduler is asked for: to leave a run's threads at what they are doing."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the system call's number; Python and older C libraries lack it
_LONGEST_SLICE_NS = 100_000_000  # that Linux grants; its default is 0.7 to 3 ms, on two to eight cores


class _Attributes(ctypes.Structure):
    """``struct sched_attr`` of sched_setattr(2). For these policies ``runtime`` is the slice; 0 is the default one."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Asks the kernel to let a thread go on when another wakes or waits: this one, and all that it starts inside.

    All cores are busy, and nobody is hurried: what an interruption wins for one it loses in caches for two. Who wakes
    does not interrupt (``SCHED_BATCH``); and who waits does so for up to a tenth of a second (Linux 6.12 and later),
    in which any step of an actor, and nearly any batch, comes to its end. Threads of other programs, which ask for
    shorter slices, are served first as ever. A policy that the user has chosen (``chrt``) stays.
    """
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    _schedule(os.SCHED_BATCH, _LONGEST_SLICE_NS)
    try:
        yield
    finally:
        _schedule(os.SCHED_OTHER, 0)


def let_threads_end(pid: int) -> None:
    """Gives a share of the cores back to the threads of a process that run only where a core is idle.

    A process is gone only once its last thread is: on a busy machine such a thread, which has next to nothing to do,
    would take minutes for it. Where the system does not allow it, it does take that long.
    """
    with contextlib.suppress(OSError):  # the process is gone
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                if os.sched_getscheduler(int(thread)) == os.SCHED_IDLE:
                    os.sched_setscheduler(int(thread), os.SCHED_BATCH, os.sched_param(0))


def _schedule(policy: int, slice_ns: int) -> None:
    """Of this thread. A container may forbid it; Linux before 6.12 takes the policy alone."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, policy, os.sched_param(0))
    number = _SCHED_SETATTR.get(platform.machine())
    if number is not None:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        attributes = _Attributes(ctypes.sizeof(_Attributes), policy, nice=nice, runtime=slice_ns)
        ctypes.CDLL(None).syscall(number, 0, ctypes.byref(attributes), 0)
