"""How a run is asked to stop, and learns that it was suspended."""

import os
import select
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


def asking() -> list[signal.Signals]:
    """What asks a process to end: Ctrl-C, SIGTERM, and the end of its terminal, unless ``nohup`` has it ignored."""
    hears_hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hears_hangup else [])]


class Signals:
    """Ctrl-C, SIGTERM and a terminal that goes: the first asks the run to stop, the next go to whom they went before.

    SIGCONT is noted.
    """

    def __init__(self) -> None:
        """Nothing is handled before ``handled`` is entered."""
        self.exitcode = 0  # 0 until a signal has come
        self._continued = False
        self._asking = asking()
        self._before: dict[int, Any] = {}  # handlers
        # No lock, and so no threading.Event: the handler runs inside whatever the main thread is doing.
        self._asked_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles them while it lasts, once; outside of the main thread, which alone can, nothing is handled."""
        try:
            if threading.current_thread() is threading.main_thread():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, self._asking)  # user code may have blocked them
                self._listen()
                self._before[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._note)
            yield
        finally:
            self._give_back(self._before)
            os.close(self._asked_fd)

    def _listen(self) -> None:
        for number in self._asking:
            if signal.getsignal(number) != self._handle:
                self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, _: object) -> None:
        # The command line's own handlers end the process; the forkserver takes the actors with it. SIGCONT stays: given
        # back while it is pending (``timeout`` sends it after its own signal), it would raise in the main thread.
        self._give_back(self._asking)
        self.exitcode = 128 + number
        os.eventfd_write(self._asked_fd, 1)

    def _give_back(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in self._before:
                signal.signal(number, self._before[number])

    def _note(self, _: int, __: object) -> None:
        self._continued = True

    def was_continued(self) -> bool:
        """Whether the process was stopped and continued since the last call."""
        continued, self._continued = self._continued, False
        return continued

    def wait(self, timeout_s: float) -> bool:
        """Waits for a signal; True if one has come. In the thread in which they are handled."""
        if self._before and not self.exitcode:
            self._listen()  # user code may have put its own handlers in their place
        asked = select.poll()  # select() takes no descriptor above 1023, and each actor has some
        asked.register(self._asked_fd, select.POLLIN)
        asked.poll(1000 * timeout_s)
        return self.exitcode != 0
