"""The two queues between the actors and the model, and the channel that carries their few bytes.

Each actor has one ``SOCK_SEQPACKET`` socket pair with the learner. No lock, pipe or buffer is shared between actors, so
a ``kill -9`` of one, at any instant, can neither hold up nor corrupt another; the kernel tells the learner by an end of
file. The learner waits for all its ends with one ``epoll``.

* ``PredictionQueue``: requests that wait in the sockets. Predictors take every request that is there.
* ``TrainingQueue``: complete rollouts, inside the learner. Predictors fill it, because a rollout is complete once
  V(s_T) is known, and that is the prediction for the first step of the actor's next rollout. Trainers drain it.

Both are iterators that end when they are closed, on every side. This module knows neither model nor torch.
"""

import contextlib
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ga3c.slabs import Slab

NO_SEGMENT: Final = -1
POLL_S: Final = 0.1  # how soon a loop that is asked to stop while it waits notices, without having been woken
MAX_MESSAGE_BYTES: Final = 65536

_REQUEST: Final = struct.Struct("<ciii")  # kind, segment, step, completed segment; then the episodes that ended
_EPISODE: Final = struct.Struct("<dq")  # return, length
_RELEASE: Final = struct.Struct("<ci")  # kind, segment
_KIND_REQUEST, _KIND_ERROR = b"r", b"e"
_KIND_ACT, _KIND_RELEASE, _KIND_STOP = b"a", b"f", b"s"


class ChannelClosed(Exception):  # noqa: N818  (an end, not an error)
    """The other end of a channel is gone, or asked this one to stop."""


class ActorError(Exception):
    """An actor raised; the message is its traceback."""


@dataclass(frozen=True)
class Episode:
    """A finished game: its return without any clipping, and its length in agent steps."""

    episode_return: float
    length: int


class ActorPort:
    """The actor's end of its channel: asks for actions, waits for them, and for segments to write into."""

    def __init__(self, end: socket.socket, segments: int) -> None:
        """``end`` is the actor's end of the pair; ``segments`` the number of segments in its slab."""
        self._socket = end
        self._free = deque(range(segments))

    def acquire_segment(self) -> int:
        """Returns a segment to write into; waits until a trainer has released one. This is the back-pressure.

        Raises:
          ChannelClosed: the learner is gone or asked the actor to stop.
        """
        while not self._free:
            self._receive()
        return self._free.popleft()

    def request_actions(self, segment: int, step: int, completed: int, episodes: list[Episode]) -> None:
        """Asks for the actions of ``step`` of ``segment``, whose states are in the slab.

        Args:
          segment: the segment being written.
          step: its step, 0 .. T-1.
          completed: the segment that V(s) of this request completes, or ``NO_SEGMENT``.
          episodes: games that ended since the last request.

        Raises:
          ChannelClosed: the learner is gone.
        """
        message = _REQUEST.pack(_KIND_REQUEST, segment, step, completed)
        message += b"".join(_EPISODE.pack(e.episode_return, e.length) for e in episodes)
        self._send(message)

    def wait_for_actions(self) -> None:
        """Waits until the actions of the last request are in the slab.

        Raises:
          ChannelClosed: the learner is gone or asked the actor to stop.
        """
        while self._receive() != _KIND_ACT:
            pass

    def report_error(self, traceback: str) -> None:
        """Tells the learner why this actor ends."""
        self._send(_KIND_ERROR + traceback.encode(errors="replace")[-MAX_MESSAGE_BYTES + 1 :])

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message)
        except OSError as error:
            raise ChannelClosed("the learner is gone") from error

    def _receive(self) -> bytes:
        """Waits for one message and returns its kind; a release is noted here."""
        try:
            message = self._socket.recv(_RELEASE.size)
        except OSError as error:
            raise ChannelClosed("the learner is gone") from error
        kind = message[:1]
        if kind == _KIND_RELEASE:
            self._free.append(_RELEASE.unpack(message)[1])
        elif kind != _KIND_ACT:
            raise ChannelClosed("stopped by the learner" if kind == _KIND_STOP else "the learner is gone")
        return kind


@dataclass(frozen=True)
class Request:
    """One actor's wish for the actions of its K environments."""

    channel: "ActorChannel"
    segment: int
    step: int
    completed: int
    episodes: list[Episode]

    @property
    def size(self) -> int:
        """States in the request: K."""
        return self.channel.slab.layout.envs


class ActorChannel:
    """The learner's end of one actor's channel, with the slab that it speaks about.

    Predictors and trainers send on it from several threads: a message of a ``SOCK_SEQPACKET`` socket is atomic. Sending
    to an actor that is gone does nothing; the prediction queue reports the loss.
    """

    def __init__(self, index: int, end: socket.socket, slab: Slab) -> None:
        """``index`` names the actor in messages; ``end`` is the learner's end of the pair."""
        self.index = index
        self.slab = slab
        self.rollouts_completed = 0  # counted by the one predictor that receives
        self._socket = end
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def receive(self) -> Request | None:
        """Takes one message without waiting; None means that the actor is gone.

        Raises:
          ActorError: the actor raised.
        """
        try:
            message = self._socket.recv(MAX_MESSAGE_BYTES)
        except ConnectionResetError:
            return None
        if not message:
            return None
        if message[:1] == _KIND_ERROR:
            raise ActorError(message[1:].decode())
        _, segment, step, completed = _REQUEST.unpack_from(message)
        self.rollouts_completed += completed != NO_SEGMENT
        episodes = [Episode(*fields) for fields in _EPISODE.iter_unpack(message[_REQUEST.size :])]
        return Request(self, segment, step, completed, episodes)

    def reply(self) -> None:
        """Wakes the actor: its actions are in the slab."""
        self._send(_KIND_ACT)

    def release(self, segment: int) -> None:
        """Gives a segment back to the actor."""
        self._send(_RELEASE.pack(_KIND_RELEASE, segment))

    def stop(self) -> None:
        """Asks the actor to end."""
        self._send(_KIND_STOP)

    def close(self) -> None:
        """Closes the learner's end; the actor ends at its next message."""
        self._socket.close()

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # If the actor is gone, its end of file is in the epoll.
            self._socket.send(message)


class PredictionQueue:
    """Requests for actions, waiting in the actors' sockets.

    ``on_gone(channel)`` is called by the predictor that finds an actor's end closed, ``on_error(channel, traceback)``
    when an actor reports an exception; in both cases the channel has left the queue.
    """

    def __init__(
        self,
        on_gone: Callable[[ActorChannel], None],
        on_error: Callable[[ActorChannel, str], None],
    ) -> None:
        self._on_gone = on_gone
        self._on_error = on_error
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._channels: dict[int, ActorChannel] = {}
        self._collecting = threading.Lock()  # guards receiving, and the leaving and closing of channels
        self._closed = False

    def add(self, channel: ActorChannel) -> None:
        """Listens to one more actor, until its end closes."""
        self._channels[channel.fileno()] = channel
        self._epoll.register(channel.fileno(), select.EPOLLIN)

    def _remove(self, channel: ActorChannel) -> None:
        del self._channels[channel.fileno()]
        self._epoll.unregister(channel.fileno())
        channel.close()

    @property
    def capacity(self) -> int:
        """The most requests that can wait: one an actor."""
        return len(self._channels)

    @property
    def depth(self) -> int:
        """Requests that wait now."""
        try:
            return sum(fd in self._channels for fd, _ in self._epoll.poll(0))
        except ValueError:  # closed
            return 0

    def batches(self, max_batch_size: int, stop: threading.Event) -> Iterator[list[Request]]:
        """Yields lists of at least one request, at most ``max_batch_size`` states unless a single request is larger.

        Takes what is there without waiting for more. Ends when the queue closes or ``stop`` is set. Any number of
        threads may iterate.
        """
        while not (self._closed or stop.is_set()):
            requests = self._collect(max_batch_size)
            if requests:
                yield requests

    def _collect(self, max_batch_size: int) -> list[Request]:
        gone: list[ActorChannel] = []
        failed: list[tuple[ActorChannel, str]] = []
        requests: list[Request] = []
        size = 0
        with self._collecting:
            if self._closed:
                return []
            for fd, _ in self._epoll.poll(POLL_S):
                channel = self._channels.get(fd)
                if channel is None:
                    continue
                if requests and size + channel.slab.layout.envs > max_batch_size:
                    break  # epoll is level-triggered: the rest stays ready for the next predictor.
                try:
                    request = channel.receive()
                except ActorError as error:
                    failed.append((channel, str(error)))
                    self._remove(channel)
                    continue
                if request is None:
                    gone.append(channel)
                    self._remove(channel)
                    continue
                requests.append(request)
                size += request.size
        for channel in gone:
            self._on_gone(channel)
        for channel, traceback in failed:
            self._on_error(channel, traceback)
        return requests

    def close(self) -> None:
        """Ends every iterator and closes every channel, which ends the actors. May be called twice."""
        if self._closed:
            return
        self._closed = True
        os.eventfd_write(self._wake_fd, 1)
        with self._collecting:
            for channel in list(self._channels.values()):
                self._remove(channel)
            self._epoll.close()
            os.close(self._wake_fd)


class Rollouts:
    """T steps of the K environments of one actor: one complete segment of its slab, waiting to be trained on."""

    def __init__(self, channel: ActorChannel, segment: int) -> None:
        """``segment`` is the learner's until ``release``."""
        self._channel = channel
        self._segment = segment

    @property
    def actor(self) -> int:
        """Index of the actor that made them."""
        return self._channel.index

    @property
    def count(self) -> int:
        """Rollouts: K."""
        return self._channel.slab.layout.envs

    @property
    def samples(self) -> int:
        """Steps of all rollouts, live or not: T * K."""
        layout = self._channel.slab.layout
        return layout.t_max * layout.envs

    def field(self, name: str) -> NDArray[np.generic]:
        """A view of one of the slab's arrays: [T, K, ...], [T] for versions, [K] for bootstrap values."""
        view: NDArray[np.generic] = getattr(self._channel.slab, name)[self._segment]
        return view

    def release(self) -> None:
        """Gives the segment back to its actor; its arrays must not be read after that."""
        self._channel.release(self._segment)


class TrainingQueue:
    """Complete rollouts inside the learner.

    It needs no bound of its own: an actor has at most ``segments - 1`` complete segments out, and stops when it has
    none left to write into.
    """

    def __init__(self) -> None:
        self._rollouts: deque[Rollouts] = deque()
        self._changed = threading.Condition()  # guards the deque, the counts and _closed
        self._collecting = threading.Lock()  # one trainer gathers at a time: two half-full batches could wait for ever
        self._samples = 0
        self._capacity = 0
        self._closed = False

    def put(self, rollouts: Rollouts) -> None:
        """Adds a complete segment; never waits. After ``close`` it is dropped."""
        with self._changed:
            if self._closed:
                return
            self._rollouts.append(rollouts)
            self._samples += rollouts.samples
            self._changed.notify()

    def add_capacity(self, samples: int) -> None:
        """Tells the queue that actors can have this many more samples in it (fewer, if negative)."""
        with self._changed:
            self._capacity += samples
            self._changed.notify_all()

    @property
    def capacity(self) -> int:
        """The most samples that can wait, given the actors there are."""
        return self._capacity

    @property
    def depth(self) -> int:
        """Samples that wait now."""
        return self._samples

    def batches(self, min_batch_size: int, stop: threading.Event) -> Iterator[list[Rollouts]]:
        """Yields rollouts of at least ``min_batch_size`` samples together, in the order in which they were completed.

        Fewer if the actors that are left could never fill such a batch. Ends when the queue closes or ``stop`` is set;
        a batch that is not yet full then stays in the queue. Any number of threads may iterate.
        """
        while not (self._closed or stop.is_set()):
            rollouts = self._collect(min_batch_size)
            if rollouts:
                yield rollouts

    def _collect(self, min_batch_size: int) -> list[Rollouts]:
        if not self._collecting.acquire(timeout=POLL_S):
            return []
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._enough(min_batch_size), POLL_S)
                if self._closed or not self._enough(min_batch_size):
                    return []
                batch: list[Rollouts] = []
                taken = 0
                while self._rollouts and (not batch or taken < min_batch_size):
                    batch.append(self._rollouts.popleft())
                    taken += batch[-1].samples
                self._samples -= taken
                return batch
        finally:
            self._collecting.release()

    def _enough(self, min_batch_size: int) -> bool:
        return bool(self._rollouts) and self._samples >= min(min_batch_size, self._capacity)

    def close(self) -> None:
        """Ends every iterator; what waits is dropped. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
