"""Ends a process safely while it has late threads: threads of a run that were asked to leave and are still busy.

Such a thread is inside torch or EnvPool. When it comes back from there while the interpreter is being torn down,
CPython before 3.14 unwinds its stack; frames of C++ that must not throw make ``std::terminate`` of that, and the
process aborts (github.com/python/cpython/issues/87135). So the interpreter is never torn down beside such a thread: the
command line leaves it to the operating system, and a program that has called ``ga3c.train`` waits for it.
"""

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

# How long a program that ends waits for late threads: first silently, then after saying so. The run has already waited
# for seconds, but on a heavily overloaded machine one batch takes tens of seconds.
_QUIET_S, _WAIT_S = 5.0, 60.0


class RoleThread(threading.Thread):
    """A thread of a role, with the event that asks it to leave."""

    def __init__(self, name: str, run: Callable[[str, threading.Event], None]) -> None:
        """``run`` is given the name and the event. A daemon: the interpreter would wait without a bound."""
        self.stop = threading.Event()
        super().__init__(target=run, args=(name, self.stop), name=name, daemon=True)


def threads_are_left() -> bool:
    """Whether there are threads beside which the interpreter must not be torn down, or for which it would wait.

    The latter are users': one that a module has started for good would keep a finished command from ending.
    """
    return len(threading.enumerate()) > 1


def leave(code: int) -> NoReturn:
    """Ends the process at once, with everything flushed; the operating system ends its threads."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):  # nobody listens
            stream.flush()
    os._exit(code)


def leave_threads(code: int) -> NoReturn:
    """Runs the registered exit functions, except the one that waits for role threads; then as ``leave``."""
    atexit.unregister(_wait_for_role_threads)
    atexit._run_exitfuncs()
    leave(code)


def _wait_for_role_threads() -> None:
    """Called by the interpreter that ends, before it is torn down."""
    threads = [thread for thread in threading.enumerate() if isinstance(thread, RoleThread)]
    for thread in threads:
        thread.stop.set()  # those of a run that the program has left behind in a thread of its own
    left = threads
    with contextlib.suppress(KeyboardInterrupt):  # whoever types it does not want to wait
        left = _join(threads, _QUIET_S)
        if left:
            print(f"ga3c: {_names(left)} still busy; the program's end waits for {_WAIT_S:g} s", file=sys.stderr)
            left = _join(left, _WAIT_S)
    if left := [thread for thread in left if thread.is_alive()]:
        print(f"ga3c: {_names(left)} still busy; the process ends all the same, with exit code 1", file=sys.stderr)
        leave(1)  # What the program's own exit code would be cannot be known here.


def _join(threads: list[RoleThread], seconds: float) -> list[RoleThread]:
    """Waits for them, and returns those that have not ended."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread for thread in threads if thread.is_alive()]


def _names(threads: list[RoleThread]) -> str:
    names = ", ".join(thread.name for thread in threads)
    return f"{names} {'is' if len(threads) == 1 else 'are'}"


# Exit functions run in reverse order of registration. This one is registered when the package is imported, so it runs
# after most of the program's own.
atexit.register(_wait_for_role_threads)
