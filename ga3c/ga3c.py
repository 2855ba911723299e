"""Mode ``ga3c``: wires actors, predictors and trainers to one model and two queues.

The only module that knows every role of this mode.
"""

import time

from ga3c.batches import Batcher
from ga3c.config import TrainConfig
from ga3c.dynamic import Adjuster, Counts, walk_of
from ga3c.forkserver import ForkServer
from ga3c.predictor import Predictor
from ga3c.presets import most_counts
from ga3c.sampler import Sampler
from ga3c.supervisor import Failure, ThreadGroup
from ga3c.system import LEAST_LEAVE_S, STOP_TIMEOUT_S, Account, Context
from ga3c.trainer import Trainer


class Ga3c:
    """The running system. ``start``, then ``tick`` a few times a second, then ``stop``."""

    def __init__(self, context: Context) -> None:
        """Takes over the context's sampler, or makes one."""
        config, model, meters = context.config, context.model, context.meters
        model.seed_actions(context.seed)  # a resumed run draws others than the run before
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
            lambda: Predictor(requests, rollouts, model, meters, max_batch_size=self._config.max_prediction_batch),
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
                min_batch_size=self._config.min_training_batch,
            ),
            self._sampler.failures,
        )

        self._is_cut_short = False  # a trainer was still busy when the run ended
        self._adjuster: Adjuster | None = None
        if config.dynamic != "off":
            start, most = Counts(config.actors, config.predictors, config.trainers), Counts(*most_counts(config))
            walk = walk_of(config.dynamic, start, most, config.seed)
            # The paper's walk counts updates (TPS), ours what they are made of.
            trained = (lambda: meters.updates) if config.dynamic == "paper" else (lambda: meters.samples)
            self._adjuster = Adjuster(walk, self._change_counts, trained)

    def start(self) -> None:
        """Starts every thread and actor."""
        self.trainers.set_count(self._config.trainers)
        self.predictors.set_count(self._config.predictors)
        self._sampler.start()

    def _change_counts(self, counts: Counts) -> None:
        self.trainers.set_count(counts.trainers)
        self.predictors.set_count(counts.predictors)
        self.actors.set_count(counts.actors)

    def adjust(self, config: TrainConfig) -> None:
        """Goes on with other counts of actors, predictors and trainers, and other batches; nothing is lost.

        Threads finish the batch in hand, and others take their place; actors with the highest numbers leave.
        """
        self.pause()
        self._config = config
        self._change_counts(Counts(config.actors, config.predictors, config.trainers))

    def pause(self) -> None:
        """Neither predicts nor trains until ``adjust`` is called; the actors wait for their answers."""
        self.predictors.set_count(0)
        self.trainers.set_count(0)

    @property
    def failure(self) -> Failure | None:
        """The first failure of any role."""
        return self._sampler.failures.first

    def tick(self) -> None:
        """Looks after the actors, samples what nobody counts, and changes the counts if it is time to."""
        self._sampler.tick(self._meters)
        playing = self.actors.at_work
        self._meters.sampled_counts(
            actors=len(self.actors),
            actors_playing=playing,
            predictors=len(self.predictors),
            trainers=len(self.trainers),
        )
        if self._adjuster is not None and playing == len(self.actors):  # what a count does is seen with all of them
            self._adjuster.tick(self._meters.time_s)

    def account(self) -> Account:
        """Exact once everything has stopped."""
        rollouts = self._sampler.rollouts
        dropped, unfinished = self.actors.unfinished_steps()
        # Only then: elsewhere a batch that is trained on twice, or never, must show.
        if self.failure is not None or self._is_cut_short:
            why = "update not finished" if self.failure is None else "update failed"
            dropped[why] = rollouts.handed_out - self._meters.samples
        return Account(dropped, unfinished + rollouts.live_steps())

    def stop(self) -> None:
        """Ends every thread and process, within seconds: queues first, then one deadline for all, then a kill."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        self._sampler.close()
        late = self.trainers.join(deadline)
        self._is_cut_short = bool(late)
        late += self.predictors.join(deadline)
        self._sampler.join(max(deadline, time.monotonic() + LEAST_LEAVE_S))
        for name in late:
            self._notify(f"{name} was still busy {STOP_TIMEOUT_S:g} s after it was asked to stop")
