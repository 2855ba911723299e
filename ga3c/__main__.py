"""``python -m ga3c`` and the ``ga3c`` command."""

import gc
import io
import os
import signal
import sys
from types import FrameType

from ga3c import descendants
from ga3c.late import leave, leave_threads, threads_are_left
from ga3c.signals import asking

_COLLECT_EVERY = 50_000  # objects, instead of 700: imports make many that stay, and looking through them takes 0.3 s


def main() -> None:
    """Runs the command line; a signal before a run handles it ends the process, without a traceback."""
    # The imports take seconds: an exception raised inside them may come out as anything.
    for number in asking():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    gc.set_threshold(_COLLECT_EVERY)
    descendants.adopt_orphans()
    from setproctitle import setproctitle

    from ga3c.cli import run

    if sys.argv[1:2] == ["train"]:
        setproctitle("ga3c: learner")  # here alone: a program that calls ga3c.train keeps its own
    if isinstance(sys.stdout, io.TextIOWrapper):  # what it cannot encode, it shows as an escape
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = run(sys.argv[1:])
    except BaseException:
        if not threads_are_left():
            raise
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        descendants.end_command()
    for number in asking():
        signal.signal(number, signal.SIG_IGN)  # All is done: nothing is left to stop, and the code is known.
    if code == 2:  # A slip of the finger is answered at once: to unload torch, of no use yet, would take 0.4 s.
        leave(code)
    if threads_are_left():
        leave_threads(code)
    sys.exit(code)


def _leave(number: int, _: FrameType | None) -> None:
    descendants.end_command()
    os._exit(128 + number)


if __name__ == "__main__":
    main()
