"""``python -m ga3c`` and the ``ga3c`` command."""

import os
import signal
import sys
from types import FrameType

from ga3c.signals import asking


def main() -> None:
    """Runs the command line; a signal before a run handles it ends the process, without a traceback."""
    # The imports take seconds: an exception raised inside them may come out as anything.
    for number in asking():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from setproctitle import setproctitle

    from ga3c.cli import run

    if sys.argv[1:2] == ["train"]:
        setproctitle("ga3c: learner")  # here alone: a program that calls ga3c.train keeps its own
    code = run(sys.argv[1:])
    for number in asking():
        signal.signal(number, signal.SIG_IGN)  # All is done: nothing is left to stop, and the code is known.
    sys.exit(code)


def _leave(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
