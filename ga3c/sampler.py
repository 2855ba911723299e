"""The half of mode ``ga3c`` that needs no torch: the actors, and the two queues in which they meet the model.

It can be started before the model is made, and before torch is loaded: the actors make their environments meanwhile.
"""

import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from ga3c.actor import actor_settings
from ga3c.channels import ActorChannel, Unfinished
from ga3c.choices import computes_on_cpu
from ga3c.config import TrainConfig
from ga3c.envs import EnvSpec
from ga3c.forkserver import ForkServer
from ga3c.metrics import Meters
from ga3c.queues import PredictionQueue, TrainingQueue
from ga3c.slabs import ActorClock, Slab, SlabLayout, create_slab_memory
from ga3c.supervisor import Failures, ProcessGroup


class Sampler:
    """``start``; then predictors take from ``requests`` and trainers from ``rollouts``; then ``close`` and ``join``.

    Attributes:
      requests, rollouts: the prediction queue and the training queue.
      actors: the processes.
      failures: of the actors, and of whoever else adds to them.
      notify: is told what becomes of actors, a sentence at a time; may be set anew.
    """

    def __init__(
        self, config: TrainConfig, spec: EnvSpec, seed: int, notify: Callable[[str], None], server: ForkServer
    ) -> None:
        """``seed`` is of the games; ``server`` is a forkserver for actors."""
        self._count = config.actors
        self._started = False
        self.notify = notify
        self.failures = Failures()
        self.rollouts = TrainingQueue()
        layout = SlabLayout.of(
            spec,
            segments=config.segments,
            t_max=config.t_max,
            envs=config.envs_per_actor,
            on_cpu=computes_on_cpu(config.device),
        )
        first = math.ceil(config.min_training_batch / (config.t_max * config.envs_per_actor))  # fill a batch
        server.configure(actor_settings(config.env_config(), layout, seed, max(1, first)))
        self.actors = ActorGroup(
            server,
            layout,
            self.rollouts,
            self.failures,
            self._say,
            timeout_s=config.actor_timeout,
            replace_on_env_error=config.on_env_error == "replace",
        )
        self.requests = PredictionQueue(self.actors.on_gone, self.actors.on_error, config.prediction_patience / 1000)
        self.actors.listen_on(self.requests)

    def _say(self, text: str) -> None:
        self.notify(text)

    def start(self) -> None:
        """Starts the actors, if that has not been done."""
        if not self._started:
            self._started = True
            self.actors.start()
            self.actors.set_count(self._count)

    def tick(self, meters: Meters) -> None:
        """Looks after the actors; samples what nobody counts: queue depths and the actors' clocks."""
        self.actors.look_after()
        meters.sampled_depths(self.requests.depth, self.rollouts.depth)
        self.actors.read_clocks(meters)

    def close(self) -> None:
        """Ends both queues, and so those who iterate over them, and asks the actors to end. May be called twice."""
        self.actors.stop()
        self.rollouts.close()
        self.requests.close()

    def join(self, deadline: float) -> None:
        """Waits for the actors until ``deadline`` (``time.monotonic``), then kills them. May be called twice."""
        self.actors.join(deadline)

    def abandon(self) -> None:
        """Ends everything at once. It does nothing to a sampler that has been joined."""
        self.close()
        self.join(time.monotonic())


class ActorGroup(ProcessGroup[ActorChannel]):
    """The actors: each has a slab, is heard by the prediction queue, and can fill the training queue."""

    def __init__(
        self,
        server: ForkServer,
        layout: SlabLayout,
        training_queue: TrainingQueue,
        failures: Failures,
        notify: Callable[[str], None],
        *,
        timeout_s: float,
        replace_on_env_error: bool,
    ) -> None:
        """``layout`` is of each actor's slab; the rest as in ``ProcessGroup``."""
        super().__init__(
            "actor", server, failures, notify, timeout_s=timeout_s, replace_on_env_error=replace_on_env_error
        )
        self._layout = layout
        self._training_queue = training_queue
        self._requests: PredictionQueue | None = None
        self._clocks: dict[ActorChannel, np.ndarray] = {}  # as last read
        self._is_beginning = True  # until it is looked after
        self._counted: set[ActorChannel] = set()  # in the training queue's capacity
        # Of actors that are gone, by why; a predictor may still add to the last.
        self._lost_rollouts: defaultdict[str, list[Unfinished]] = defaultdict(list)

    def listen_on(self, requests: PredictionQueue) -> None:
        """New actors are heard there."""
        self._requests = requests

    def _open(self, index: int) -> tuple[ActorChannel, socket.socket, int]:
        slab_fd = create_slab_memory(self._layout)
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            return ActorChannel(index, ours, Slab(self._layout, slab_fd)), theirs, slab_fd
        except (OSError, ValueError):
            os.close(slab_fd)
            raise

    def _opened(self, channel: ActorChannel) -> None:
        assert self._requests is not None
        self._requests.add(channel)
        if self._is_beginning:
            self._count(channel)

    def look_after(self) -> None:
        """See ``ProcessGroup``. Trainers wait for an actor that comes later from its first request on, not before."""
        super().look_after()
        with self._lock:
            self._is_beginning = False
            for record in self._records.values():
                if record.channel.progress and record.channel not in self._counted:
                    self._count(record.channel)

    def _count(self, channel: ActorChannel) -> None:
        self._counted.add(channel)
        self._training_queue.add_capacity(self._capacity)

    def _lost(self, channel: ActorChannel, *, left: bool) -> None:
        if channel in self._counted:
            self._counted.remove(channel)
            self._training_queue.add_capacity(-self._capacity)
        self._clocks.pop(channel, None)
        self._lost_rollouts["actor left" if left else "actor replaced"].append(channel.unfinished)

    @property
    def _capacity(self) -> int:
        """Samples of one actor that can wait for training: the segment being written cannot."""
        return (self._layout.segments - 1) * self._layout.t_max * self._layout.envs

    def unfinished_steps(self) -> tuple[dict[str, int], int]:
        """Steps of rollouts that were never completed: of actors that are gone, by why, and of those that are there."""
        with self._lock:
            lost = {why: sum(one.steps for one in unfinished) for why, unfinished in self._lost_rollouts.items()}
            there = sum(record.channel.unfinished.steps for record in self._records.values())
            return {why: steps for why, steps in lost.items() if steps}, there

    def read_clocks(self, meters: Meters) -> None:
        """Passes on what the actors spent their time with since the last call."""
        spent = np.zeros(len(ActorClock.FIELDS))
        with self._lock:
            for record in self._records.values():
                clock = record.channel.slab.clock.copy()
                # Before its first rollout an actor waits for the model to be made, which is no figure of the run's.
                if record.channel in self._clocks:
                    spent += clock - self._clocks[record.channel]
                if record.channel.rollouts_completed:
                    self._clocks[record.channel] = clock
        meters.spent("actor", **dict(zip(ActorClock.FIELDS, map(float, spent), strict=True)))
