"""How a run is asked to stop, and learns that it was suspended."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """SIGINT and SIGTERM: the first asks the run to stop, the second ends the process at once. SIGCONT is noted."""

    def __init__(self) -> None:
        """Nothing is handled before ``handled`` is entered."""
        self.exitcode = 0  # 0 until a signal has come
        self._continued = False
        # No lock, and so no threading.Event: the handler runs inside whatever the main thread is doing.
        self._asked_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles them while it lasts, once."""
        old = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        old[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._note)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            os.close(self._asked_fd)

    def _handle(self, number: int, _: object) -> None:
        if self.exitcode:
            os._exit(128 + number)  # The forkserver sees the end of this process and takes the actors with it.
        self.exitcode = 128 + number
        os.eventfd_write(self._asked_fd, 1)

    def _note(self, _: int, __: object) -> None:
        self._continued = True

    def was_continued(self) -> bool:
        """Whether the process was stopped and continued since the last call."""
        continued, self._continued = self._continued, False
        return continued

    def wait(self, timeout_s: float) -> bool:
        """Waits for a signal; True if one has come."""
        select.select([self._asked_fd], [], [], timeout_s)
        return self.exitcode != 0
