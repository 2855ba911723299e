"""The trainer: a thread that turns complete rollouts into updates of the model."""

import threading
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ga3c.metrics import Meters
from ga3c.model import Batch, Model
from ga3c.queues import Rollouts, TrainingQueue
from ga3c.returns import lambda_returns


class Trainer:
    """Gathers rollouts into a batch, computes its targets, gives the segments back, and updates the model."""

    def __init__(
        self,
        rollouts: TrainingQueue,
        model: Model,
        meters: Meters,
        learning_rate: Callable[[], float],
        *,
        min_batch_size: int,
        discount: float,
        trace_decay: float,
    ) -> None:
        """``min_batch_size`` is in samples; ``learning_rate`` is asked before each update."""
        self._rollouts = rollouts
        self._model = model
        self._meters = meters
        self._learning_rate = learning_rate
        self._min_batch_size = min_batch_size
        self._discount = discount
        self._trace_decay = trace_decay
        self._states: Tensor | None = None  # reused, grown when a batch is larger

    def run(self, stop: threading.Event) -> None:
        """Trains until the queue closes or ``stop`` is set."""
        idle_since = time.perf_counter()
        for rollouts in self._rollouts.batches(self._min_batch_size, stop):
            began = time.perf_counter()
            batch = self.gather(rollouts)
            for rollout in rollouts:
                rollout.release()  # The batch is a copy: actors go on while it is trained on.
            copied = time.perf_counter()
            update = self._model.update(batch, self._learning_rate())
            now = time.perf_counter()
            self._meters.updated(update, len(batch.states))
            self._meters.spent("trainer", waiting=began - idle_since, copying=copied - began, training=now - copied)
            idle_since = now

    def gather(self, rollouts: list[Rollouts]) -> Batch:
        """Copies rollouts into one batch, with their targets. Samples are ordered by rollouts, step, environment."""
        size = sum(r.samples for r in rollouts)
        states = self._buffer(size, rollouts[0])
        gathered = states.numpy()
        offset = 0
        for r in rollouts:
            source = r.field("observations")
            gathered[offset : offset + r.samples] = source.reshape(r.samples, *source.shape[2:])
            offset += r.samples

        def flat(name: str) -> np.ndarray:
            return np.concatenate([r.field(name).reshape(-1) for r in rollouts])

        versions = np.concatenate([np.repeat(r.field("versions"), r.count) for r in rollouts])
        return Batch(
            states=states,
            actions=torch.from_numpy(flat("actions")),
            returns=torch.from_numpy(self._returns(rollouts)),
            live=torch.from_numpy(flat("live")),
            versions=versions,
        )

    def _returns(self, rollouts: list[Rollouts]) -> np.ndarray:
        """[B] targets of all rollouts, computed at once over [T, sum of K]."""

        def by_step(name: str) -> np.ndarray:
            return np.concatenate([r.field(name) for r in rollouts], axis=1)

        returns = lambda_returns(
            by_step("rewards"),
            by_step("terminated"),
            by_step("truncated"),
            by_step("values"),
            np.concatenate([r.field("bootstrap_values") for r in rollouts]),
            self._discount,
            self._trace_decay,
        )
        columns = np.split(returns, np.cumsum([r.count for r in rollouts])[:-1], axis=1)
        return np.concatenate([c.reshape(-1) for c in columns])

    def _buffer(self, size: int, like: Rollouts) -> Tensor:
        if self._states is None or len(self._states) < size:
            source = like.field("observations")
            self._states = self._model.host_buffer((size, *source.shape[2:]), str(source.dtype))
        return self._states[:size]
