"""Mode ``a3c``: wires worker processes to the parameters that they share, and counts what they report."""

import os
import selectors
import socket
import threading
import time
import traceback
from typing import Any

import torch

from ga3c.channels import MAX_MESSAGE_BYTES, error_in
from ga3c.forkserver import ForkServer
from ga3c.metrics import Meters
from ga3c.shared import SharedState, create_shared_memory
from ga3c.supervisor import Failure, Failures, ProcessGroup
from ga3c.system import LEAST_LEAVE_S, STOP_TIMEOUT_S, Account, Context
from ga3c.worker import Report, worker_devices, worker_settings

_POLL_S = 0.1


class A3c:
    """The running system. ``start``, then ``tick`` a few times a second, then ``stop``.

    The learner's own model is never asked for anything: its parameters are the shared ones, for checkpoints.
    """

    def __init__(self, context: Context) -> None:
        """Moves the parameters to shared memory. Workers ask the schedule for the learning rate themselves."""
        config, model, resumed = context.config, context.model, context.resumed
        self._config = config
        self._model = model
        self._meters = context.meters
        self._resumed_updates = resumed.updates
        self._failures = Failures()
        self._memory_fd = create_shared_memory(model.network, model.optimiser, config.actors)
        self._shared = SharedState(model.network, model.optimiser, config.actors, self._memory_fd)
        with torch.no_grad():
            self._shared.fill(model.network, model.optimiser)
            self._shared.attach(model.network, model.optimiser)
        self._shared.counts.time_s = resumed.time_s
        settings = worker_settings(
            config,
            context.spec,
            devices=worker_devices(config.device),
            precision=model.precision,
            resumed_steps=resumed.env_steps,
        )
        server = context.server or ForkServer("worker")
        server.configure(settings)
        self._listener = _Listener(context.meters)
        self.workers = _WorkerGroup(
            self._memory_fd,
            self._listener,
            "worker",
            server,
            self._failures,
            context.notify,
            timeout_s=config.actor_timeout,
            replace_on_env_error=config.on_env_error == "replace",
        )
        self._listening = threading.Thread(target=self._listen, name="worker reports", daemon=True)

    def start(self) -> None:
        """Starts every worker."""
        self._listening.start()
        self.workers.start()
        self.workers.set_count(self._config.actors)

    def _listen(self) -> None:
        try:
            self._listener.run(self.workers)
        except BaseException:
            self._failures.add("worker reports", traceback.format_exc())

    @property
    def failure(self) -> Failure | None:
        """The first failure of any worker."""
        return self._failures.first

    def tick(self) -> None:
        """Looks after the workers. The version of the shared parameters is the number of updates all have made."""
        self._shared.counts.time_s = self._meters.time_s
        self.workers.look_after()
        self._count_updates()

    def _count_updates(self) -> None:
        self._model.version = self._resumed_updates + self._shared.counts.updates

    def account(self) -> Account:
        """Steps are counted together with the update that has seen them."""
        return Account()

    def stop(self) -> None:
        """Ends the workers after the update in hand, within seconds; then kills what is left."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        self.workers.stop()
        self._listener.stop()
        if self._listening.ident is not None:
            self._listening.join(STOP_TIMEOUT_S)
        self.workers.join(max(deadline, time.monotonic() + LEAST_LEAVE_S))
        os.close(self._memory_fd)
        self._count_updates()


class _WorkerChannel:
    """The learner's end of a worker's socket."""

    def __init__(self, index: int, end: socket.socket) -> None:
        self.index = index
        self.rollouts_completed = 0
        self.end = end

    @property
    def progress(self) -> int:
        """Reports received."""
        return self.rollouts_completed

    @property
    def awaited(self) -> bool:
        """A worker waits for nobody."""
        return True

    def stop(self) -> None:
        """The worker ends when it next reports."""
        self.end.shutdown(socket.SHUT_RDWR)


class _WorkerGroup(ProcessGroup[_WorkerChannel]):
    """The workers: all map the same memory, and are heard by the listener."""

    def __init__(self, memory_fd: int, listener: "_Listener", *arguments: Any, **options: Any) -> None:
        """``arguments`` and ``options`` are those of ``ProcessGroup``."""
        super().__init__(*arguments, **options)
        self._memory_fd = memory_fd
        self._listener = listener

    def _open(self, index: int) -> tuple[_WorkerChannel, socket.socket, int]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(None)  # user code may have set another default
        return _WorkerChannel(index, ours), theirs, os.dup(self._memory_fd)

    def _opened(self, channel: _WorkerChannel) -> None:
        self._listener.add(channel)


class _Listener:
    """Reads the workers' reports, in one thread, and passes them to the meters."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()

    def add(self, channel: _WorkerChannel) -> None:
        """Listens to one more worker."""
        self._selector.register(channel.end, selectors.EVENT_READ, channel)

    def run(self, workers: _WorkerGroup) -> None:
        """Until it is asked to stop; then workers can report no more, and what they had reported is still counted."""
        while not self._stop.is_set():
            for key, _ in self._selector.select(_POLL_S):
                self._receive(key.data, workers)
        for key in list(self._selector.get_map().values()):
            key.data.stop()
            while self._receive(key.data, workers):
                pass
        self._selector.close()

    def stop(self) -> None:
        """Ends ``run`` soon."""
        self._stop.set()

    def _receive(self, channel: _WorkerChannel, workers: _WorkerGroup) -> bool:
        """Reads a message; returns whether there can be another."""
        try:
            message = channel.end.recv(MAX_MESSAGE_BYTES)
        except OSError:
            message = b""
        if not message:
            self._close(channel)
            workers.on_gone(channel)
            return False
        error = error_in(message)
        if error is not None:
            self._close(channel)
            workers.on_error(channel, error)
            return False
        channel.rollouts_completed += 1
        self._count(Report.unpack(message))
        return True

    def _count(self, report: Report) -> None:
        self._meters.predicted(report.env_steps, 1, report.episodes, batches=report.rows)
        self._meters.updated(report.update, report.rows)
        self._meters.spent("worker", **report.seconds)

    def _close(self, channel: _WorkerChannel) -> None:
        self._selector.unregister(channel.end)
        channel.end.close()
