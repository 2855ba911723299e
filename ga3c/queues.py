"""The two queues between the actors and the model. Both live in the learner.

* ``PredictionQueue``: requests that wait in the actors' sockets, all of them watched by one ``epoll``. Predictors take
  every request that is there.
* ``TrainingQueue``: complete rollouts. Predictors fill it, because a rollout is complete once V(s_T) is known, and that
  is the prediction for the first step of the actor's next rollout. Trainers drain it.

Both are iterators that end when they are closed, on every side. This module knows neither model nor torch.
"""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from ga3c.channels import MAX_MESSAGE_BYTES, ActorChannel, RemoteError, Request
from ga3c.slabs import Rollouts

POLL_S: Final = 0.1  # how soon a loop that is asked to stop while it waits notices, without having been woken


class PredictionQueue:
    """Requests for actions, waiting in the actors' sockets.

    ``on_gone(channel)`` is called by the predictor that finds an actor's end closed, ``on_error(channel, error)`` when
    an actor reports an exception; in both cases the channel has left the queue.
    """

    def __init__(
        self,
        on_gone: Callable[[ActorChannel], None],
        on_error: Callable[[ActorChannel, RemoteError], None],
        patience_s: float = 0.0,
    ) -> None:
        """``patience_s`` is how long a predictor waits once for more, if fewer than half of the actors have asked."""
        self._patience_s = patience_s
        self._on_gone = on_gone
        self._on_error = on_error
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._channels: dict[int, ActorChannel] = {}
        self._collecting = threading.Lock()  # guards receiving and _buffer, and the leaving and closing of channels
        self._buffer = bytearray(MAX_MESSAGE_BYTES)  # of what is received
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

        Takes what is there, after the queue's patience. Ends when the queue closes or ``stop`` is set. Any number of
        threads may iterate.
        """
        while not (self._closed or stop.is_set()):
            requests = self._collect(max_batch_size)
            if requests:
                yield requests

    def _collect(self, max_batch_size: int) -> list[Request]:
        gone: list[ActorChannel] = []
        failed: list[tuple[ActorChannel, RemoteError]] = []
        requests: list[Request] = []
        size = 0
        with self._collecting:
            if self._closed:
                return []
            ready = self._epoll.poll(POLL_S)
            if self._patience_s and self._is_worth_a_wait(ready, max_batch_size):
                # Other predictors wait for the lock meanwhile: they would only split the batch.
                time.sleep(self._patience_s)
                ready = self._epoll.poll(0)
            for fd, _ in ready:
                channel = self._channels.get(fd)
                if channel is None:
                    continue
                if requests and size + channel.envs > max_batch_size:
                    break  # epoll is level-triggered: the rest stays ready for the next predictor.
                try:
                    request = channel.receive(self._buffer)
                except RemoteError as error:
                    failed.append((channel, error))
                    self._remove(channel)
                    continue
                if request is None:
                    gone.append(channel)
                    self._remove(channel)
                    continue
                requests.append(request)
                size += request.place.envs
        for channel in gone:
            self._on_gone(channel)
        for channel, raised in failed:
            self._on_error(channel, raised)
        return requests

    def _is_worth_a_wait(self, ready: list[tuple[int, int]], max_batch_size: int) -> bool:
        """Whether fewer than half of the actors have asked, and a batch has room for more."""
        if not ready or 2 * len(ready) >= len(self._channels):
            return False
        asking = [self._channels[fd] for fd, _ in ready if fd in self._channels]
        return sum(channel.envs for channel in asking) < max_batch_size

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


class TrainingQueue:
    """Complete rollouts inside the learner.

    It needs no bound of its own: an actor has at most ``segments - 1`` complete segments out, and stops when it has
    none left to write into.
    """

    def __init__(self) -> None:
        self._rollouts: deque[Rollouts] = deque()
        self._changed = threading.Condition()  # guards the deque, the counts and _closed
        self._collecting = threading.Lock()  # one trainer gathers at a time: two half-full batches could wait for ever
        self._wanted = 0  # samples, by the trainer that gathers
        self.handed_out = 0  # live steps
        self._samples = 0
        self._capacity = 0
        self._closed = False

    def put(self, rollouts: Rollouts) -> None:
        """Adds a complete segment; never waits. After ``close`` nobody takes it."""
        with self._changed:
            self._rollouts.append(rollouts)
            self._samples += rollouts.samples
            if self._enough(self._wanted):  # a trainer that is woken for less finds its caches cold, and sleeps again
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
                self._wanted = min_batch_size
                self._changed.wait_for(lambda: self._closed or self._enough(min_batch_size), POLL_S)
                if self._closed or not self._enough(min_batch_size):
                    return []
                batch: list[Rollouts] = []
                taken = 0
                while self._rollouts and (not batch or taken < min_batch_size):
                    batch.append(self._rollouts.popleft())
                    taken += batch[-1].samples
                self._samples -= taken
                self.handed_out += sum(rollouts.live_steps for rollouts in batch)
                return batch
        finally:
            self._collecting.release()

    def _enough(self, min_batch_size: int) -> bool:
        return bool(self._rollouts) and self._samples >= min(min_batch_size, self._capacity)

    def close(self) -> None:
        """Ends every iterator; what waits stays there. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def live_steps(self) -> int:
        """Live steps of the rollouts that wait."""
        with self._changed:
            return sum(rollouts.live_steps for rollouts in self._rollouts)
