"""Mode ``ga3c``: wires actors, predictors and trainers to one model and two queues.

The only module that knows every role of this mode.
"""

import time

from ga3c.batches import Batcher
from ga3c.forkserver import ForkServer
from ga3c.predictor import Predictor
from ga3c.sampler import Sampler
from ga3c.supervisor import Failure, ThreadGroup
from ga3c.system import STOP_TIMEOUT_S, Account, Context
from ga3c.trainer import Trainer


class Ga3c:
    """The running system. ``start``, then ``tick`` a few times a second, then ``stop``."""

    def __init__(self, context: Context) -> None:
        """Takes over the context's sampler, or makes one."""
        config, model, meters = context.config, context.model, context.meters
        self._config = config
        self._meters = meters
        self._notify = context.notify
        self._sampler = context.sampler or Sampler(
            config, context.spec, context.seed, context.notify, context.server or ForkServer("actor")
        )
        self._sampler.notify = context.notify
        self.actors = self._sampler.actors
        requests, rollouts = self._sampler.requests, self._sampler.rollouts
        self.predictors = ThreadGroup(
            "predictor",
            lambda: Predictor(requests, rollouts, model, meters, max_batch_size=config.max_prediction_batch),
            self._sampler.failures,
        )
        self.trainers = ThreadGroup(
            "trainer",
            lambda: Trainer(
                rollouts,
                Batcher(model, discount=config.discount, trace_decay=config.gae_lambda),
                model,
                meters,
                context.learning_rate,
                min_batch_size=config.min_training_batch,
            ),
            self._sampler.failures,
        )

    def start(self) -> None:
        """Starts every thread and actor."""
        self.trainers.set_count(self._config.trainers)
        self.predictors.set_count(self._config.predictors)
        self._sampler.start()

    @property
    def failure(self) -> Failure | None:
        """The first failure of any role."""
        return self._sampler.failures.first

    def tick(self) -> None:
        """Looks after the actors, and samples what nobody counts."""
        self._sampler.tick(self._meters)

    def account(self) -> Account:
        """Exact once everything has stopped."""
        rollouts = self._sampler.rollouts
        lost, unfinished = self.actors.unfinished_steps()
        dropped = {"actor replaced": lost} if lost else {}
        if self.failure is not None:  # Only then: elsewhere a batch that is trained on twice, or never, must show.
            dropped["update failed"] = rollouts.handed_out - self._meters.samples
        return Account(dropped, unfinished + rollouts.live_steps())

    def stop(self) -> None:
        """Ends every thread and process, within seconds: queues first, then one deadline for all, then a kill."""
        self._sampler.close()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        late = self.predictors.join(deadline) + self.trainers.join(deadline)
        self._sampler.join(deadline)
        for name in late:
            self._notify(f"{name} was still busy {STOP_TIMEOUT_S:g} s after it was asked to stop")
