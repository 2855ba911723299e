"""Starts, watches, replaces and stops worker processes and the learner's threads.

It does not know what they do: a wiring module hands it a factory for each role of threads, and the channels and memory
of its processes.
"""

import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ga3c.channels import RemoteError
from ga3c.descendants import end_started_by
from ga3c.envs import EnvError
from ga3c.errors import UsageError, WorkerError
from ga3c.forkserver import ForkServer
from ga3c.late import RoleThread

MAX_DEATHS = 5  # in a row, of one actor, without a rollout: then it is not bad luck
_LONGEST_LOOK_S = 1.0
_START_TIMEOUT_S = 60.0  # of a worker, until it first does something


class Role(Protocol):
    """What a thread runs."""

    def run(self, stop: threading.Event) -> None:
        """Works until its queue closes or ``stop`` is set."""


@dataclass(frozen=True)
class Failure:
    """Why a run cannot go on: the role's name and its traceback, or a sentence about what the user asked for."""

    role: str
    traceback: str
    is_usage: bool = False

    def __str__(self) -> str:
        return f"{self.role}: {self.traceback}" if self.is_usage else f"{self.role} failed:\n{self.traceback.rstrip()}"

    def error(self) -> WorkerError | UsageError:
        """What a run raises because of it."""
        return UsageError(str(self)) if self.is_usage else WorkerError(str(self))


class Failures:
    """Keeps the first failure of a run; those that follow are its echo."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards first
        self.first: Failure | None = None

    def add(self, role: str, text: str, *, is_usage: bool = False) -> None:
        """Notes a failure."""
        with self._lock:
            if self.first is None:
                self.first = Failure(role, text, is_usage)


class ThreadGroup:
    """The threads of one role; their number can change while they run."""

    def __init__(self, role: str, make: Callable[[], Role], failures: Failures) -> None:
        """``make`` is called for each thread; ``role`` names them, as in ``predictor 1``."""
        self._role = role
        self._make = make
        self._failures = failures
        self._threads: list[RoleThread] = []
        self._leaving: list[RoleThread] = []

    def __len__(self) -> int:
        return len(self._threads)

    def set_count(self, count: int) -> None:
        """Starts threads, or asks the newest to leave; they finish the batch in hand."""
        self._leaving = [thread for thread in self._leaving if thread.is_alive()]
        while len(self._threads) > count:
            thread = self._threads.pop()
            thread.stop.set()
            self._leaving.append(thread)
        while len(self._threads) < count:
            thread = RoleThread(f"{self._role} {len(self._threads)}", self._run)
            self._threads.append(thread)
            thread.start()

    def _run(self, name: str, stop: threading.Event) -> None:
        try:
            self._make().run(stop)
        except EnvError as error:
            self._failures.add(name, f"{error}\n{traceback.format_exc()}")
        except BaseException:
            self._failures.add(name, traceback.format_exc())

    def join(self, deadline: float) -> list[str]:
        """Asks all to leave, waits until ``deadline`` (``time.monotonic``), and names those that have not left."""
        self.set_count(0)
        for thread in self._leaving:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in self._leaving if thread.is_alive()]


class Channel(Protocol):
    """The learner's end of what it says to one worker process."""

    index: int
    rollouts_completed: int

    @property
    def progress(self) -> int:
        """Changes with everything the worker does."""

    @property
    def awaited(self) -> bool:
        """Whether it is the worker's turn to do something."""

    def stop(self) -> None:
        """Asks the worker to end."""


C = TypeVar("C", bound=Channel)


@dataclass
class _Record(Generic[C]):
    channel: C
    generation: int
    leaving: bool = False
    progress: int = -1  # when last looked at
    silent_s: float = 0.0  # since then
    hung: bool = False  # and is being killed


class ProcessGroup(Generic[C]):
    """The worker processes of one role; their number can change while they run, and one that dies is replaced."""

    def __init__(
        self,
        role: str,
        server: ForkServer,
        failures: Failures,
        notify: Callable[[str], None],
        *,
        timeout_s: float,
        replace_on_env_error: bool,
    ) -> None:
        """``role`` names them, as in ``actor 1``.

        ``notify`` is told, in a sentence, when one has been replaced: because it died, because it did nothing for
        ``timeout_s`` although it was its turn, or (``replace_on_env_error``) because its environment failed.
        """
        self._timeout_s = timeout_s
        self._replace_on_env_error = replace_on_env_error
        self._looked_at = time.monotonic()
        self._role = role
        self._server = server
        self._failures = failures
        self._notify = notify
        self._lock = threading.Lock()  # guards all that follows; the queues' locks are never held when it is taken
        self._wanted = 0
        self._records: dict[int, _Record[C]] = {}
        self._deaths: dict[int, int] = {}
        self._stopping = False
        self._watcher = threading.Thread(target=self._watch, name=f"{role} watch", daemon=True)
        self._exited = threading.Condition()  # guards _pids; the watch must not need _lock, or starts wait for it
        self._pids: dict[int, int] = {}  # of the workers that run, by generation

    def _open(self, index: int) -> tuple[C, socket.socket, int]:
        """A new channel, the worker's end of it, and the descriptor of the memory that it maps; both are closed.

        Raises:
          OSError, ValueError: no descriptors or memory are left.
        """
        raise NotImplementedError

    def _opened(self, channel: C) -> None:
        """A worker was started, and will speak on ``channel``."""

    def _lost(self, channel: C, *, left: bool) -> None:
        """The worker of ``channel`` is gone: it had been asked to leave, or is to be replaced."""

    def start(self) -> None:
        """Begins to watch."""
        self._watcher.start()

    def __len__(self) -> int:
        return self._wanted

    @property
    def at_work(self) -> int:
        """How many have come so far as to do something, and have not been asked to leave."""
        with self._lock:
            return sum(record.channel.progress > 0 and not record.leaving for record in self._records.values())

    def set_count(self, count: int) -> None:
        """Starts workers, or asks those with the highest numbers to leave; their complete rollouts are kept."""
        with self._lock:
            self._wanted = count
            for index, record in self._records.items():
                if index >= count and not record.leaving:
                    record.leaving = True
                    record.channel.stop()
            for index in range(count):
                if index not in self._records:  # One that is still on its way out is started again when it has gone.
                    self._start(index)

    def _start(self, index: int) -> None:
        """Starts one worker; where that cannot be done the run fails. The caller holds the lock."""
        try:
            channel, theirs, memory_fd = self._open(index)
            try:
                generation = self._server.start_worker(index, theirs, memory_fd)
            finally:
                theirs.close()
                os.close(memory_fd)
        except (OSError, ValueError) as error:  # No descriptors or memory are left, or the server is gone.
            self._failures.add(f"{self._role} {index}", f"cannot be started: {error}")
            return
        self._records[index] = _Record(channel, generation)
        self._opened(channel)

    def on_gone(self, channel: C) -> None:
        """A worker's end has closed: it left, or died and is replaced."""
        self._replace(channel, "it died")

    def on_error(self, channel: C, error: RemoteError) -> None:
        """A worker raised: the run ends, or the worker is replaced."""
        if error.in_environment and self._replace_on_env_error:
            self._replace(channel, str(error))
        else:
            self._failures.add(f"{self._role} {channel.index}", str(error), is_usage=error.is_usage)

    def _replace(self, channel: C, why: str) -> None:
        """``why`` is a sentence, and what more there is to say in lines after it."""
        with self._lock:
            record = self._records.get(channel.index)
            if self._stopping or record is None or record.channel is not channel:
                return
            del self._records[channel.index]
            self._lost(channel, left=record.leaving)
            if record.leaving:
                if channel.index < self._wanted:
                    self._start(channel.index)
                return
            deaths = 0 if channel.rollouts_completed else self._deaths.get(channel.index, 0) + 1
            self._deaths[channel.index] = deaths
            if record.hung:
                why = f"it did nothing for {self._timeout_s:g} s"
            if deaths >= MAX_DEATHS:
                text = f"it ended {MAX_DEATHS} times in a row without finishing a rollout; the last time: {why}"
                self._failures.add(f"{self._role} {channel.index}", text)
                return
            self._start(channel.index)
        cause = why.splitlines()[0]
        self._notify(f"{self._role} {channel.index} was replaced, its unfinished rollout dropped: {cause}")

    def look_after(self) -> None:
        """Kills workers that hang; called a few times a second."""
        now = time.monotonic()
        # What passes while the learner itself stands still (SIGSTOP, the lid of a laptop) is nobody's silence.
        elapsed_s, self._looked_at = min(now - self._looked_at, _LONGEST_LOOK_S), now
        with self._lock:
            for record in self._records.values():
                progress = record.channel.progress
                starting = not progress and not self._runs(record.generation)
                if starting or not record.channel.awaited or progress != record.progress:
                    record.progress, record.silent_s = progress, 0.0
                    continue
                record.silent_s += elapsed_s
                # Making environments takes what it takes, and longer where many are made at once.
                limit_s = self._timeout_s if progress else max(self._timeout_s, _START_TIMEOUT_S)
                if record.silent_s > limit_s and not record.hung:
                    record.hung = True
                    self._server.kill_worker(record.generation)

    def _watch(self) -> None:
        try:
            self._server.watch(self._on_start, self._on_exit)
        except BaseException:
            self._failures.add(f"{self._role} watch", traceback.format_exc())
        if not self._stopping:
            self._failures.add("forkserver", f"it ended, and every {self._role} with it")
            end_started_by(self.pids())  # which it can do no more

    def _on_start(self, generation: int, pid: int) -> None:
        with self._exited:
            self._pids[generation] = pid

    def _runs(self, generation: int) -> bool:
        with self._exited:
            return generation in self._pids

    def _on_exit(self, generation: int, exitcode: int) -> None:
        with self._exited:
            self._pids.pop(generation, None)
            self._exited.notify_all()
        if exitcode < 0 and not self._stopping:
            known = {int(s): s.name for s in signal.Signals}
            name = known.get(-exitcode, f"signal {-exitcode}")
            self._notify(f"{self._role}: a process was ended by {name}")

    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        with self._exited:
            return list(self._pids.values())

    def stop(self) -> None:
        """From now on a worker that goes is not replaced."""
        with self._lock:
            self._stopping = True

    def join(self, deadline: float) -> None:
        """Ends the server, and whatever workers are left with it; kills them at ``deadline``."""
        self._server.close(max(0.0, deadline - time.monotonic()), self._notify)
        if self._watcher.ident is not None:
            self._watcher.join(_LONGEST_LOOK_S)
