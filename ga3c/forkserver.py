"""A small process that forks the workers: mode ga3c's actors (without torch), mode a3c's workers (with it).

Forking from the learner is unsafe once torch has started threads, and a spawned interpreter imports the user's
``__main__`` and EnvPool anew for each worker. This server imports what they need once, has one thread, and knows
nothing of ``__main__``: a worker starts in milliseconds and shares the server's pages.

Who dies when: the server ends when the learner's end of the socket closes, and is killed by the kernel when the
learner is gone (``PR_SET_PDEATHSIG``); so are workers when the server is, even inside an environment's step. Nobody
waits for anybody.
"""

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from ga3c.channels import MAX_MESSAGE_BYTES, report_error
from ga3c.errors import WorkerError

# One thread in each process that shares the cores with others; read by numpy's and OpenCV's libraries when they load.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_PR_SET_PDEATHSIG = 1


class ForkServer:
    """The learner's handle on the server: starts workers, hears of their ends, and ends them all."""

    def __init__(self, role: str) -> None:
        """Starts the server; it goes on importing while this returns.

        To be called in the main thread: the kernel ends the server with the thread that made it.

        ``role`` is the module of the package that workers live in, and what they are called in ``ps``: its
        ``prepare()`` is called once, in the server; its ``main(settings, index, generation, end, memory_fd)`` is a
        worker's life.
        """
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._send_lock = threading.Lock()  # guards _generation, and that a start is sent whole
        self._generation = 0
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ga3c.forkserver", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env=os.environ | _ONE_THREAD | {"PYTHONPATH": _python_path()},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is the learner's to handle
            )
        self._tell({"role": role, "path": sys.path})

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

    def close(self, timeout_s: float) -> None:
        """Ends the server and whatever workers are left; kills it if it has not ended in time."""
        # shutdown wakes a watch() that is inside recv; close alone would not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._socket.close()


def _python_path() -> str:
    """Where this package is, first: the folder that the user works in may hold one of the same name."""
    ours = str(Path(__file__).parent.parent)
    return os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])


def _serve(learner: socket.socket) -> None:
    """Forks a worker for each message, reports each worker's end, and ends with the learner."""
    job = json.loads(learner.recv(MAX_MESSAGE_BYTES))
    sys.path[:] = job["path"]
    module = importlib.import_module(f"ga3c.{job['role']}")
    module.prepare()  # once, here, for all workers
    settings: dict[str, Any] = {}
    children: dict[int, tuple[int, int]] = {}  # pidfd -> (pid, generation)
    poll = select.poll()
    poll.register(learner.fileno(), select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd in children:
                poll.unregister(fd)
                _report_exit(learner, fd, *children.pop(fd))
                continue
            message, fds, _, _ = socket.recv_fds(learner, MAX_MESSAGE_BYTES, 2)
            if not message:
                return
            start = json.loads(message)
            if "settings" in start:
                settings = start["settings"]
                continue
            if "kill" in start:
                for pidfd, (_, generation) in children.items():
                    if generation == start["kill"]:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                continue
            try:
                pid = os.fork()
            except OSError as error:  # No processes or memory are left, for now perhaps.
                with socket.socket(fileno=fds[0]) as end:
                    report_error(end, error)
                os.close(fds[1])
                continue
            if pid == 0:
                # The descriptors of the server and of other workers are closed by hand: one that kept another's end
                # open would hide that one's death.
                for other in [learner.fileno(), *children]:
                    os.close(other)
                _live(job["role"], module.main, settings, start, *fds)
            for fd_sent in fds:
                os.close(fd_sent)
            pidfd = os.pidfd_open(pid)
            children[pidfd] = (pid, start["generation"])
            poll.register(pidfd, select.POLLIN)
            learner.send(json.dumps({"generation": start["generation"], "pid": pid}).encode())


def _report_exit(learner: socket.socket, pidfd: int, pid: int, generation: int) -> None:
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    exitcode = os.waitstatus_to_exitcode(status)
    learner.send(json.dumps({"generation": generation, "exitcode": exitcode}).encode())


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It died before the line above.
        os._exit(1)


def _live(
    role: str, main: Callable[..., None], settings: dict[str, Any], start: dict[str, int], end_fd: int, memory_fd: int
) -> None:
    """The whole life of a worker process; never returns."""
    exitcode = 1
    end = socket.socket(fileno=end_fd)
    try:
        _die_with_parent(_SERVER_PID)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end.set_inheritable(False)  # A process that the environment starts must not keep the channel open.
        setproctitle(f"ga3c: {role} {start['index']}")
        main(settings, start["index"], start["generation"], end, memory_fd)
        exitcode = 0
    except BaseException as error:
        report_error(end, error)
    finally:
        os._exit(exitcode)


_SERVER_PID = os.getpid()

if __name__ == "__main__":
    _die_with_parent(int(sys.argv[2]))  # also while it imports
    _, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _most))  # it has a descriptor for each worker
    for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(_number, signal.SIG_IGN)  # It ends with the learner, which is asked by the same signals.
    _LEARNER = socket.socket(fileno=int(sys.argv[1]))
    _LEARNER.set_inheritable(False)
    setproctitle("ga3c: forkserver")
    with contextlib.suppress(ConnectionError):  # The learner is gone, and so will be the workers.
        _serve(_LEARNER)
    os._exit(0)  # It has nothing to write; how the libraries of environments end by themselves is not known.
