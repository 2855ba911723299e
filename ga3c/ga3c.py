"""Mode ``ga3c``: wires actors, predictors and trainers to one model and two queues.

The only module that knows every role of this mode.
"""

import time

from ga3c.actor import actor_settings
from ga3c.batches import Batcher
from ga3c.forkserver import ForkServer
from ga3c.predictor import Predictor
from ga3c.queues import PredictionQueue, TrainingQueue
from ga3c.slabs import SlabLayout
from ga3c.supervisor import ActorGroup, Failure, Failures, ThreadGroup
from ga3c.system import Context
from ga3c.trainer import Trainer

_STOP_TIMEOUT_S = 2.0


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
        server = ForkServer("actor", "actor", settings)
        self.actors = ActorGroup(server, layout, self._rollouts, self._failures, context.notify)
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
        """Samples what nobody counts: queue depths and the actors' clocks."""
        self._meters.sampled_depths(self._requests.depth, self._rollouts.depth)
        self.actors.read_clocks(self._meters)

    def stop(self) -> None:
        """Ends every thread and process, within seconds: queues first, then one deadline for all, then a kill."""
        self.actors.stop()
        self._rollouts.close()
        self._requests.close()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        late = self.predictors.join(deadline) + self.trainers.join(deadline)
        self.actors.join(_STOP_TIMEOUT_S)
        for name in late:
            self._notify(f"{name} was still busy {_STOP_TIMEOUT_S:g} s after it was asked to stop")
