"""The trainer: a thread that turns complete rollouts into updates of the model."""

import threading
import time
from collections.abc import Callable

from ga3c.batches import Batcher
from ga3c.metrics import Meters
from ga3c.model import Model
from ga3c.queues import TrainingQueue


class Trainer:
    """Takes rollouts until they fill a batch, gives the segments back, and updates the model."""

    def __init__(
        self,
        rollouts: TrainingQueue,
        batcher: Batcher,
        model: Model,
        meters: Meters,
        learning_rate: Callable[[], float],
        *,
        min_batch_size: int,
    ) -> None:
        """``min_batch_size`` is in samples; ``learning_rate`` is asked before each update."""
        self._rollouts = rollouts
        self._batcher = batcher
        self._model = model
        self._meters = meters
        self._learning_rate = learning_rate
        self._min_batch_size = min_batch_size

    def run(self, stop: threading.Event) -> None:
        """Trains until the queue closes or ``stop`` is set."""
        idle_since = time.perf_counter()
        for rollouts in self._rollouts.batches(self._min_batch_size, stop):
            began = time.perf_counter()
            batch = self._batcher.gather(rollouts)
            for rollout in rollouts:
                rollout.release()  # The batch is a copy: actors go on while it is trained on.
            copied = time.perf_counter()
            update = self._model.update(batch, self._learning_rate())
            now = time.perf_counter()
            self._meters.updated(update, len(batch.versions))
            self._meters.spent("trainer", waiting=began - idle_since, copying=copied - began, training=now - copied)
            idle_since = now
