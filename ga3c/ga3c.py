"""Mode ``ga3c``: wires actors, predictors and trainers to one model and two queues.

The only module that knows every role of this mode.
"""

import os
import socket
import time
from collections.abc import Callable

import numpy as np

from ga3c.actor import actor_settings
from ga3c.batches import Batcher
from ga3c.channels import ActorChannel, Unfinished
from ga3c.forkserver import ForkServer
from ga3c.metrics import Meters
from ga3c.predictor import Predictor
from ga3c.queues import PredictionQueue, TrainingQueue
from ga3c.slabs import ActorClock, Slab, SlabLayout, create_slab_memory
from ga3c.supervisor import Failure, Failures, ProcessGroup, ThreadGroup
from ga3c.system import STOP_TIMEOUT_S, Account, Context
from ga3c.trainer import Trainer


class Ga3c:
    """The running system. ``start``, then ``tick`` a few times a second, then ``stop``."""

    def __init__(self, context: Context) -> None:
        """Starts the forkserver, which imports while the caller goes on."""
        config, spec, model, meters = context.config, context.spec, context.model, context.meters
        self._config = config
        self._meters = meters
        self._notify = context.notify
        layout = SlabLayout(
            config.segments,
            config.t_max,
            config.envs_per_actor,
            spec.observation_shape,
            spec.observation_dtype,
        )
        self._failures = Failures()
        self._rollouts = TrainingQueue()
        settings = actor_settings(config.env_config(), layout, context.seed)
        server = context.server or ForkServer("actor")
        server.configure(settings)
        self.actors = ActorGroup(
            server,
            layout,
            self._rollouts,
            self._failures,
            context.notify,
            timeout_s=config.actor_timeout,
            replace_on_env_error=config.on_env_error == "replace",
        )
        self._requests = PredictionQueue(self.actors.on_gone, self.actors.on_error, config.prediction_patience / 1000)
        self.actors.listen_on(self._requests)
        self.predictors = ThreadGroup(
            "predictor",
            lambda: Predictor(
                self._requests, self._rollouts, model, meters, max_batch_size=config.max_prediction_batch
            ),
            self._failures,
        )
        self.trainers = ThreadGroup(
            "trainer",
            lambda: Trainer(
                self._rollouts,
                Batcher(model, discount=config.discount, trace_decay=config.gae_lambda),
                model,
                meters,
                context.learning_rate,
                min_batch_size=config.min_training_batch,
            ),
            self._failures,
        )

    def start(self) -> None:
        """Starts every thread and actor."""
        self.trainers.set_count(self._config.trainers)
        self.predictors.set_count(self._config.predictors)
        self.actors.start()
        self.actors.set_count(self._config.actors)

    @property
    def failure(self) -> Failure | None:
        """The first failure of any role."""
        return self._failures.first

    def tick(self) -> None:
        """Looks after the actors; samples what nobody counts: queue depths and the actors' clocks."""
        self.actors.look_after()
        self._meters.sampled_depths(self._requests.depth, self._rollouts.depth)
        self.actors.read_clocks(self._meters)

    def account(self) -> Account:
        """Exact once everything has stopped."""
        lost, unfinished = self.actors.unfinished_steps()
        dropped = {"actor replaced": lost} if lost else {}
        if self.failure is not None:  # Only then: elsewhere a batch that is trained on twice, or never, must show.
            dropped["update failed"] = self._rollouts.handed_out - self._meters.samples
        return Account(dropped, unfinished + self._rollouts.live_steps())

    def stop(self) -> None:
        """Ends every thread and process, within seconds: queues first, then one deadline for all, then a kill."""
        self.actors.stop()
        self._rollouts.close()
        self._requests.close()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        late = self.predictors.join(deadline) + self.trainers.join(deadline)
        self.actors.join(deadline)
        for name in late:
            self._notify(f"{name} was still busy {STOP_TIMEOUT_S:g} s after it was asked to stop")


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
        self._lost_rollouts: list[Unfinished] = []  # of actors that are gone; a predictor may still add to the last

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
        self._training_queue.add_capacity(self._capacity)
        self._requests.add(channel)

    def _lost(self, channel: ActorChannel) -> None:
        self._training_queue.add_capacity(-self._capacity)
        self._clocks.pop(channel, None)
        self._lost_rollouts.append(channel.unfinished)

    @property
    def _capacity(self) -> int:
        """Samples of one actor that can wait for training: the segment being written cannot."""
        return (self._layout.segments - 1) * self._layout.t_max * self._layout.envs

    def unfinished_steps(self) -> tuple[int, int]:
        """Steps of rollouts that were never completed: of actors that are gone, and of those that are there."""
        with self._lock:
            lost = sum(unfinished.steps for unfinished in self._lost_rollouts)
            return lost, sum(record.channel.unfinished.steps for record in self._records.values())

    def read_clocks(self, meters: Meters) -> None:
        """Passes on what the actors spent their time with since the last call."""
        spent = np.zeros(len(ActorClock.FIELDS))
        with self._lock:
            for record in self._records.values():
                clock = record.channel.slab.clock.copy()
                spent += clock - self._clocks.get(record.channel, 0.0)
                self._clocks[record.channel] = clock
        meters.spent("actor", **dict(zip(ActorClock.FIELDS, map(float, spent), strict=True)))
