"""The process that forks the workers: ``python -m ga3c.forking SOCKET LEARNER``. The learner's side is ``forkserver``.

It ends with the learner, however that ends. Its workers then have a moment to end by themselves, and so to close their
environments; after that it kills them, and whatever they have started (see ``descendants``). The kernel kills the
workers of a server that is killed (``PR_SET_PDEATHSIG``), even inside an environment's step.
"""

import contextlib
import ctypes
import importlib
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from setproctitle import setproctitle

from ga3c import descendants
from ga3c.channels import MAX_MESSAGE_BYTES, report_error
from ga3c.forkserver import CLOSE_S
from ga3c.scheduling import let_threads_end
from ga3c.user_code import USER_ERRORS, end_if_forked, enter_worker

_PR_SET_PDEATHSIG = 1
_LEAVE_S = 2.0  # for workers to end by themselves, if the learner was killed before it could say how long
_REAP_S = 5.0  # at most, until adopted processes that have ended are reaped


class _Server:
    """Forks a worker for each message, reports each worker's end, and ends with the learner."""

    def __init__(self, learner: socket.socket, learner_pidfd: int) -> None:
        """Imports what the workers need.

        The socket alone would not tell that the learner is gone: a process that it has forked may hold a copy.
        """
        job = json.loads(learner.recv(MAX_MESSAGE_BYTES))
        sys.path[:], sys.argv = job["path"], job["argv"]
        self._role: str = job["role"]
        self._module: ModuleType = importlib.import_module(f"ga3c.{self._role}")
        self._module.prepare()  # once, here, for all workers
        self._learner = learner
        self._settings: dict[str, Any] = {}
        self._workers: dict[int, tuple[int, int]] = {}  # pidfd -> (pid, generation)
        self._closing: dict[int, mmap.mmap] = {}  # pidfd -> a byte that the worker sets: it closes its environments
        self._learner_pidfd = learner_pidfd
        self._learner_has_ended = False
        self._poll = select.poll()
        self._poll.register(learner.fileno(), select.POLLIN)
        self._poll.register(learner_pidfd, select.POLLIN)

    def run(self) -> None:
        """Serves until the learner's end closes; then ends the workers, and all that they have started."""
        descendants.adopt_orphans()
        leave_s: float | None = None
        while leave_s is None:
            for fd, _ in self._poll.poll(1000 * _REAP_S):
                if fd in self._workers:
                    self._bury(fd)
                elif (leave_s := _LEAVE_S if fd == self._learner_pidfd else self._obey()) is not None:
                    break
            descendants.reap(self._pids())
        self._end_workers(leave_s)
        descendants.end_adopted(())

    def _pids(self) -> set[int]:
        return {pid for pid, _ in self._workers.values()}

    def _obey(self) -> float | None:
        """Does what one message says; returns how long the workers have to end, if the learner is leaving."""
        message, fds, _, _ = socket.recv_fds(self._learner, MAX_MESSAGE_BYTES, 2)
        if not message:
            return _LEAVE_S
        order = json.loads(message)
        if "leave_s" in order:
            leave_s: float = order["leave_s"]
            return leave_s
        if "settings" in order:
            self._settings = order["settings"]
        elif "kill" in order:
            for pidfd, (pid, generation) in self._workers.items():
                if generation == order["kill"]:
                    let_threads_end(pid)
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        else:
            self._start(order, *fds)
        return None

    def _start(self, start: dict[str, int], end_fd: int, memory_fd: int) -> None:
        closing = mmap.mmap(-1, 1)  # shared with the worker
        try:
            pid = os.fork()
        except OSError as error:  # No processes or memory are left, for now perhaps.
            with socket.socket(fileno=end_fd) as end:
                report_error(end, error)
            os.close(memory_fd)
            return
        if pid == 0:
            # The descriptors of the server and of other workers are closed by hand: one that kept another's end open
            # would hide that one's death.
            for other in [self._learner.fileno(), self._learner_pidfd, *self._workers]:
                os.close(other)
            _live(self._role, self._module.main, self._settings, start, end_fd, memory_fd, closing)
        for fd in (end_fd, memory_fd):
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._workers[pidfd] = (pid, start["generation"])
        self._closing[pidfd] = closing
        self._poll.register(pidfd, select.POLLIN)
        self._tell({"generation": start["generation"], "pid": pid})

    def _bury(self, pidfd: int) -> None:
        """Ends what a worker that is gone has left, and reports it."""
        pid, generation = self._workers.pop(pidfd)
        self._closing.pop(pidfd).close()
        self._poll.unregister(pidfd)
        os.close(pidfd)
        descendants.end_group(pid)
        _, status = os.waitpid(pid, 0)
        descendants.end_adopted(self._pids(), pid)
        self._tell({"generation": generation, "exitcode": os.waitstatus_to_exitcode(status)})

    def _tell(self, event: dict[str, int]) -> None:
        with contextlib.suppress(OSError):  # The learner is gone, or does not listen any more.
            self._learner.send(json.dumps(event).encode())

    def _end_workers(self, leave_s: float) -> None:
        """Kills the workers that are left after so long; those that are closing their environments have longer."""
        self._poll.unregister(self._learner.fileno())
        self._wait_for_workers(leave_s)
        if leave_s > 0:  # else the learner is in a hurry
            self._kill_workers(lambda pidfd: not self._closing[pidfd][0])
            self._wait_for_workers(_LEAVE_S if self._learner_has_ended else CLOSE_S)
        self._kill_workers(lambda _: True)

    def _wait_for_workers(self, seconds: float) -> None:
        """Until all have ended or the time is up; a moment only, once the learner has ended."""
        deadline = time.monotonic() + seconds
        while self._workers and (left_s := deadline - time.monotonic()) > 0:
            for fd, _ in self._poll.poll(1000 * left_s):
                if fd == self._learner_pidfd:
                    self._poll.unregister(fd)
                    self._learner_has_ended = True
                    deadline = min(deadline, time.monotonic() + _LEAVE_S)
                else:
                    self._bury(fd)

    def _kill_workers(self, is_meant: Callable[[int], bool]) -> None:
        for pidfd, (pid, _) in list(self._workers.items()):
            if is_meant(pidfd):
                let_threads_end(pid)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                self._bury(pidfd)


def _set_death_signal(number: int) -> None:
    """Which signal the kernel sends to this process when its parent dies; 0 is none."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def _die_with_parent(parent: int) -> None:
    _set_death_signal(signal.SIGKILL)
    if os.getppid() != parent:  # It died before the line above.
        os._exit(1)


def _live(
    role: str,
    main: Callable[..., None],
    settings: dict[str, Any],
    start: dict[str, int],
    end_fd: int,
    memory_fd: int,
    closing: mmap.mmap,
) -> None:
    """The whole life of a worker process; never returns."""
    exitcode = 1
    end = socket.socket(fileno=end_fd)
    at_end = ExitStack()
    worker = os.getpid()
    try:
        _die_with_parent(_SERVER_PID)
        os.setpgid(0, 0)
        enter_worker()
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        end.settimeout(None)
        end.set_inheritable(False)  # A process that the environment starts must not keep the channel open.
        setproctitle(f"ga3c: {role} {start['index']}")
        main(settings, start["index"], start["generation"], end, memory_fd, at_end)
        exitcode = 0
    except BaseException as error:
        end_if_forked(worker)
        report_error(end, error)
    finally:
        end_if_forked(worker)
        closing[0] = True
        _close(end, at_end)
        os._exit(exitcode)


def _close(end: socket.socket, at_end: ExitStack) -> None:
    """Closes the channel, so that the learner knows at once; then the environments, within ``CLOSE_S``."""
    with contextlib.suppress(*USER_ERRORS):
        end.close()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CLOSE_S)
        let_threads_end(os.getpid())  # closing may wait for them
        at_end.close()


_SERVER_PID = os.getpid()

if __name__ == "__main__":
    _die_with_parent(int(sys.argv[2]))  # while it imports
    _, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _most))  # it has a descriptor for each worker
    for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(_number, signal.SIG_IGN)  # It ends with the learner, which is asked by the same signals.
    _LEARNER = socket.socket(fileno=int(sys.argv[1]))
    _LEARNER.set_inheritable(False)
    _LEARNER.settimeout(None)  # the socket may come from a process whose default was another
    setproctitle("ga3c: forkserver")
    with contextlib.suppress(ConnectionError):  # The learner is gone.
        _SERVER = _Server(_LEARNER, os.pidfd_open(int(sys.argv[2])))
        _set_death_signal(0)  # From here on it sees the learner's end, and has workers to end.
        _SERVER.run()
    os._exit(0)  # It has nothing to write; how the libraries of environments end by themselves is not known.
