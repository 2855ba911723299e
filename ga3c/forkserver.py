"""A small process without torch that forks the actors.

Forking from the learner is unsafe once torch has started threads, and a spawned interpreter imports the user's
``__main__`` and EnvPool anew for each actor. This server imports EnvPool once, has one thread, and knows nothing of
``__main__``: an actor starts in milliseconds and shares the server's pages.

Who dies when: the server ends when the learner's end of the socket closes, and actors are killed by the kernel when the
server is gone (``PR_SET_PDEATHSIG``), even inside an environment's step. Nobody waits for anybody.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from ga3c.actor import Actor
from ga3c.channels import MAX_MESSAGE_BYTES, ActorPort, ChannelClosed
from ga3c.envs import EnvConfig, env_seeds, make_env
from ga3c.slabs import Slab, SlabLayout

# One thread in each process that shares the cores with others; read by numpy's and OpenCV's libraries when they load.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_PR_SET_PDEATHSIG = 1
_CLOSE_TIMEOUT_S = 2.0


class ForkServer:
    """The learner's handle on the server: starts actors, hears of their ends, and ends them all."""

    def __init__(self, env: EnvConfig, layout: SlabLayout, seed: int) -> None:
        """Starts the server; it goes on importing while this returns. Every actor gets the same environment."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._send_lock = threading.Lock()  # guards _generation, and that a start is sent whole
        self._generation = 0
        settings = {"env": asdict(env), "layout": asdict(layout), "seed": seed, "path": sys.path}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ga3c.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | _ONE_THREAD | {"PYTHONPATH": _python_path()},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is the learner's to handle
            )
        self._socket.send(json.dumps(settings).encode())

    def start_actor(self, index: int, end: socket.socket, slab_fd: int) -> int:
        """Asks for an actor that speaks through ``end``, and returns the number of this start.

        Both descriptors are copied; the caller closes its own.

        Raises:
          ConnectionError: the server is gone.
        """
        with self._send_lock:
            self._generation += 1
            message = json.dumps({"index": index, "generation": self._generation}).encode()
            socket.send_fds(self._socket, [message], [end.fileno(), slab_fd])
            return self._generation

    def watch(self, on_start: Callable[[int, int], None], on_exit: Callable[[int, int], None]) -> None:
        """Reports what happens to the actors until the server is gone. Run it in a thread of its own.

        Calls ``on_start(generation, pid)`` when an actor has been forked, and ``on_exit(generation, exitcode)`` when it
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

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Ends the server and whatever actors are left; kills it if it has not ended in time."""
        # shutdown wakes a watch() that is inside recv; close alone would not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._socket.close()

    def kill(self) -> None:
        """Kills the server at once, and with it the actors."""
        self._process.kill()


def _python_path() -> str:
    """Where this package is, first: the folder that the user works in may hold one of the same name."""
    ours = str(Path(__file__).parent.parent)
    return os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])


def _serve(learner: socket.socket) -> None:
    """Forks an actor for each message, reports each actor's end, and ends with the learner."""
    settings = json.loads(learner.recv(MAX_MESSAGE_BYTES))
    sys.path[:] = settings["path"]
    import envpool  # noqa: F401  (once, here, for all actors)

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
            pid = os.fork()
            if pid == 0:
                # The descriptors of the server and of other actors are closed by hand: an actor that kept another's end
                # open would hide that one's death.
                for other in [learner.fileno(), *children]:
                    os.close(other)
                _run_actor(settings, start, *fds)
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


def _run_actor(settings: dict[str, Any], start: dict[str, int], end_fd: int, slab_fd: int) -> None:
    """The whole life of an actor process; never returns."""
    index = start["index"]
    exitcode = 1
    port = None
    try:
        _die_with_parent(_SERVER_PID)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.set_inheritable(end_fd, False)  # A process that the environment starts must not keep the channel open.
        setproctitle(f"ga3c: actor {index}")
        layout = SlabLayout(
            **settings["layout"] | {"observation_shape": tuple(settings["layout"]["observation_shape"])}
        )
        port = ActorPort(socket.socket(fileno=end_fd), layout.segments)
        slab = Slab(layout, slab_fd)
        os.close(slab_fd)
        seeds = env_seeds(settings["seed"], index, start["generation"], layout.envs)
        Actor(make_env(EnvConfig(**settings["env"]), seeds), slab, port).run()
        exitcode = 0
    except BaseException:
        try:
            if port is not None:
                port.report_error(traceback.format_exc())
        except ChannelClosed:
            pass
    finally:
        os._exit(exitcode)


_SERVER_PID = os.getpid()

if __name__ == "__main__":
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, signal.SIG_IGN)  # It ends with the learner, which is asked by the same signals.
    _LEARNER = socket.socket(fileno=int(sys.argv[1]))
    _LEARNER.set_inheritable(False)
    setproctitle("ga3c: forkserver")
    with contextlib.suppress(ConnectionError):  # The learner is gone, and so will be the actors.
        _serve(_LEARNER)
