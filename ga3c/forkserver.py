"""The learner's handle on a small process that forks the workers; see ``forking`` for that process.

Mode ga3c's workers are actors (without torch), those of mode a3c have torch.

Forking from the learner is unsafe once torch has started threads, and a spawned interpreter imports the user's
``__main__`` and EnvPool anew for each worker. This server imports what they need once, has one thread, and knows
nothing of ``__main__``: a worker starts in milliseconds and shares the server's pages.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ga3c.channels import MAX_MESSAGE_BYTES
from ga3c.errors import WorkerError
from ga3c.user_code import import_path, refuse_nested_run

# One thread in each process that shares the cores with others; read by numpy's and OpenCV's libraries when they load.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_END_S = 3.0  # for the server to kill what is left, and to end
CLOSE_S = 30  # for a worker to close its environments; SIGALRM then ends it


class ForkServer:
    """The learner's handle on the server: starts workers, hears of their ends, and ends them all."""

    def __init__(self, role: str) -> None:
        """Starts the server; it goes on importing while this returns.

        ``role`` is the module of the package that workers live in, and what they are called in ``ps``: its
        ``prepare()`` is called once, in the server; its ``main(settings, index, generation, end, memory_fd, at_end)``
        is a worker's life. The worker closes ``at_end``, an ``ExitStack``, once ``main`` has returned or raised.

        Raises:
          NestedRunError: this process belongs to a worker of another run.
        """
        refuse_nested_run()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(None)  # user code may have set another default
        self._send_lock = threading.Lock()  # guards _generation, and that a start is sent whole
        self._generation = 0
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ga3c.forking", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env=os.environ | _ONE_THREAD | {"PYTHONPATH": _python_path()},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is the learner's to handle
            )
        self._tell({"role": role, "path": import_path(), "argv": list(map(str, sys.argv))})

    def configure(self, settings: dict[str, Any]) -> None:
        """Says what every worker that is started from now on has to know, as plain values.

        Raises:
          WorkerError: the server is gone.
        """
        self._tell({"settings": settings})

    def _tell(self, message: dict[str, Any]) -> None:
        text = json.dumps(message).encode()
        assert len(text) < MAX_MESSAGE_BYTES
        try:
            with self._send_lock:
                self._socket.send(text)
        except OSError as error:
            raise WorkerError(f"forkserver: it ended before it was told what to do: {error}") from None

    def start_worker(self, index: int, end: socket.socket, memory_fd: int) -> int:
        """Asks for a worker that speaks through ``end`` and maps ``memory_fd``; returns the number of this start.

        Both descriptors are copied; the caller closes its own.

        Raises:
          ConnectionError: the server is gone.
        """
        with self._send_lock:
            self._generation += 1
            message = json.dumps({"index": index, "generation": self._generation}).encode()
            socket.send_fds(self._socket, [message], [end.fileno(), memory_fd])
            return self._generation

    def kill_worker(self, generation: int) -> None:
        """Kills the worker of that start, if it still runs; the server does it, since it knows whose process it is."""
        with self._send_lock, contextlib.suppress(OSError):  # The server is gone, and its workers with it.
            self._socket.send(json.dumps({"kill": generation}).encode())

    def watch(self, on_start: Callable[[int, int], None], on_exit: Callable[[int, int], None]) -> None:
        """Reports what happens to the workers until the server is gone. Run it in a thread of its own.

        Calls ``on_start(generation, pid)`` when a worker has been forked, and ``on_exit(generation, exitcode)`` when it
        has ended; the code is negative for a signal, as in ``subprocess``.
        """
        while True:
            try:
                message = self._socket.recv(MAX_MESSAGE_BYTES)
            except OSError:
                return
            if not message:
                return
            event = json.loads(message)
            if "pid" in event:
                on_start(event["generation"], event["pid"])
            else:
                on_exit(event["generation"], event["exitcode"])

    def close(self, timeout_s: float, notify: Callable[[str], None] | None = None) -> None:
        """Ends the server, and returns when it has ended; it is safe to call this twice.

        Workers have ``timeout_s`` seconds to end by themselves, and are then killed with what they have started. Those
        that are closing their environments by then have ``CLOSE_S`` more, which ``notify`` is told, unless it is 0.
        """
        with self._send_lock:
            had_workers = self._generation > 0
            with contextlib.suppress(OSError):  # the server is gone
                self._socket.send(json.dumps({"leave_s": timeout_s}).encode())
        # shutdown wakes a watch() that is inside recv; close alone would not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if not had_workers:  # there is nothing to wait for, and it may still be importing
            self._process.kill()
        if not self._ends_within(timeout_s + _END_S) and timeout_s > 0:
            if notify is not None:
                notify(f"environments are still being closed, for {CLOSE_S} s at most; Ctrl-C does not wait for them")
            self._ends_within(CLOSE_S + _END_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):  # user code has closed it
            self._socket.close()

    def _ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None


def _python_path() -> str:
    """Where this package is, first: the folder that the user works in may hold one of the same name."""
    ours = str(Path(__file__).parent.parent)
    return os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])
