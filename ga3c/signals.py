"""How a run is asked to stop."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """SIGINT and SIGTERM: the first asks the run to stop, the second ends the process at once."""

    def __init__(self) -> None:
        """Nothing is handled before ``handled`` is entered."""
        self.exitcode = 0  # 0 until a signal has come
        self._asked = threading.Event()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles both while it lasts."""
        old = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _: object) -> None:
        if self._asked.is_set():
            os._exit(128 + number)  # The forkserver sees the end of this process and takes the actors with it.
        self.exitcode = 128 + number
        self._asked.set()

    def wait(self, timeout_s: float) -> bool:
        """Waits for a signal; True if one has come."""
        return self._asked.wait(timeout_s)
