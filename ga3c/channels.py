"""The channel between an actor and the learner: it carries the few bytes that say where in a slab to look.

Each actor has one ``SOCK_SEQPACKET`` socket pair with the learner. No lock, pipe or buffer is shared between actors, so
a ``kill -9`` of one, at any instant, can neither hold up nor corrupt another; the kernel tells the other side by an end
of file. A message is sent and received whole. This module knows neither model nor torch.
"""

import contextlib
import socket
import struct
import threading
import traceback
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from ga3c.envs import EnvError, Episode
from ga3c.errors import UsageError
from ga3c.slabs import Place, Slab

NO_SEGMENT: Final = -1
MAX_MESSAGE_BYTES: Final = 65536

_REQUEST: Final = struct.Struct("<ciii")  # kind, segment, step, completed segment; then the episodes that ended
_EPISODE: Final = struct.Struct("<dq")  # return, length
_RELEASE: Final = struct.Struct("<ci")  # kind, segment
_ERROR, _ENV_ERROR, _USAGE_ERROR = b"e", b"v", b"u"  # begin a message whose rest says why a worker ends
_KIND_REQUEST = b"r"
_KIND_ACT, _KIND_RELEASE, _KIND_STOP = b"a", b"f", b"s"


class ChannelClosed(Exception):  # noqa: N818  (an end, not an error)
    """The other end of a channel is gone."""


class RemoteError(Exception):
    """A worker raised.

    Attributes:
      in_environment: the environment raised, or returned something outside of its spaces: the message begins with a
        sentence that says so.
      is_usage: the worker raised a ``UsageError``: the message is its sentence. If neither is set, the message is a
        traceback.
    """

    def __init__(self, text: str, *, in_environment: bool, is_usage: bool = False) -> None:
        """``text`` is the message."""
        super().__init__(text)
        self.in_environment = in_environment
        self.is_usage = is_usage


class ActorPort:
    """The actor's end of its channel: asks for actions, waits for them, and for segments to write into.

    Attributes:
      leaving: whether the learner has asked the actor to leave; noted while it waits.
    """

    def __init__(self, end: socket.socket, segments: int) -> None:
        """``end`` is the actor's end of the pair; ``segments`` the number of segments in its slab."""
        self.leaving = False
        self._socket = end
        self._free = deque(range(segments))

    def acquire_segment(self) -> int:
        """Returns a segment to write into; waits until a trainer has released one. This is the back-pressure.

        Raises:
          ChannelClosed: the learner is gone.
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
        if episodes:
            message += b"".join(_EPISODE.pack(e.episode_return, e.length) for e in episodes)
        self._send(message)

    def wait_for_actions(self) -> None:
        """Waits until the actions of the last request are in the slab.

        Raises:
          ChannelClosed: the learner is gone.
        """
        while self._receive() != _KIND_ACT:
            pass

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message)
        except OSError as error:
            raise ChannelClosed("the learner is gone") from error

    def _receive(self) -> bytes:
        """Waits for one message and returns its kind; a release, and the wish that it leave, are noted here."""
        try:
            message = self._socket.recv(_RELEASE.size)
        except OSError as error:
            raise ChannelClosed("the learner is gone") from error
        kind = message[:1]
        if kind == _KIND_RELEASE:
            self._free.append(_RELEASE.unpack(message)[1])
        elif kind == _KIND_STOP:
            self.leaving = True
        elif kind != _KIND_ACT:
            raise ChannelClosed("the learner is gone")
        return kind


def report_error(end: socket.socket, error: BaseException) -> None:
    """Tells the learner why a worker ends, if it is still there."""
    text = "".join(traceback.format_exception(error))
    kind = _ERROR
    if isinstance(error, EnvError):
        kind, text = _ENV_ERROR, f"{error}\n{text}"
    elif isinstance(error, UsageError):
        kind, text = _USAGE_ERROR, str(error)
    with contextlib.suppress(OSError):
        end.send(kind + text.encode(errors="replace")[: MAX_MESSAGE_BYTES - 1])


def error_in(message: bytes) -> RemoteError | None:
    """What ``report_error`` sent, or None if the message is another one."""
    kind = message[:1]
    if kind not in (_ERROR, _ENV_ERROR, _USAGE_ERROR):
        return None
    text = message[1:].decode(errors="replace")
    return RemoteError(text, in_environment=kind == _ENV_ERROR, is_usage=kind == _USAGE_ERROR)


class Request(NamedTuple):
    """One actor's wish for the actions of its K environments."""

    channel: "ActorChannel"
    place: Place
    completed: int
    episodes: list[Episode]


@dataclass
class Unfinished:
    """Live steps that were answered and belong to no complete rollout yet; counted by whoever answers."""

    steps: int = 0


class ActorChannel:
    """The learner's end of one actor's channel, with the slab that it speaks about.

    Predictors and trainers send on it from several threads. Sending to an actor that is gone does nothing; the
    prediction queue reports the loss.
    """

    def __init__(self, index: int, end: socket.socket, slab: Slab) -> None:
        """``index`` names the actor in messages; ``end`` is the learner's end of the pair."""
        self.index = index
        self.slab = slab
        self.envs = slab.layout.envs
        self.rollouts_completed = 0  # counted by the one predictor that receives
        self.progress = 0  # requests received, counted there too
        self.unfinished = Unfinished()
        self._replies = 0  # counted by the one predictor that has the request
        self._step = 0  # of the last request received
        self._released = 0  # segments; guarded by _sending
        self._sending = threading.Lock()  # keeps close from freeing a descriptor that another thread uses
        layout = slab.layout
        self._places = [[Place(slab, s, t) for t in range(layout.t_max)] for s in range(layout.segments)]
        self._socket = end
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def receive(self, buffer: bytearray) -> Request | None:
        """Takes one message without waiting; None means that the actor is gone.

        ``buffer`` has room for the longest message; what is in it afterwards means nothing.

        Raises:
          RemoteError: the actor raised.
        """
        try:
            size = self._receive(buffer)
        except ConnectionResetError:
            return None
        if not size:
            return None
        kind, segment, step, completed = _REQUEST.unpack_from(buffer)
        if kind != _KIND_REQUEST and (error := error_in(bytes(buffer[:size]))):
            raise error
        if completed != NO_SEGMENT:
            self.rollouts_completed += 1
        self.progress += 1
        self._step = step
        episodes = []
        if size > _REQUEST.size:
            episodes = [Episode(*fields) for fields in _EPISODE.iter_unpack(buffer[_REQUEST.size : size])]
        return Request(self, self._places[segment][step], completed, episodes)

    def _receive(self, buffer: bytearray) -> int:
        try:
            return self._socket.recv_into(buffer)
        except ConnectionResetError:
            # It closed with a message of ours unread, which the kernel tells before what it had sent; once told, the
            # error is cleared, and its last words are still there.
            return self._socket.recv_into(buffer)

    def reply(self) -> None:
        """Wakes the actor: its actions are in the slab."""
        self._replies += 1
        self._send(_KIND_ACT)

    @property
    def awaited(self) -> bool:
        """Whether it is the actor's turn: it has its actions and a segment to write into, and has not asked again.

        At first, whether it is its turn to make environments.
        """
        layout = self.slab.layout
        if not self.slab.begun[0]:
            return False
        with self._sending:
            # The segment that it has just filled is in use until the request that completes it.
            free = layout.segments - 1 - (self.rollouts_completed - self._released)
            if self.progress != self._replies or (self._step == layout.t_max - 1 and free <= 0):
                return False
            try:
                self._socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return True
            except OSError:
                return False
            return False  # a request, or its end, that no predictor has read yet

    def release(self, segment: int) -> None:
        """Gives a segment back to the actor."""
        with self._sending:
            self._released += 1
        self._send(_RELEASE.pack(_KIND_RELEASE, segment))

    def stop(self) -> None:
        """Asks the actor to leave, once its rollout is complete."""
        self._send(_KIND_STOP)

    def close(self) -> None:
        """Closes the learner's end; the actor ends at its next message. What is sent afterwards does nothing."""
        with self._sending:
            self._socket.close()

    def _send(self, message: bytes) -> None:
        with self._sending:
            try:
                self._socket.send(message)
            except OSError:
                return  # The actor is gone: its end of file is in the epoll.
