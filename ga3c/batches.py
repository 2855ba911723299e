"""From rollouts to the batch that an update learns from: one copy of their states, and their targets."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ga3c.model import Batch, Model
from ga3c.returns import lambda_returns
from ga3c.slabs import Rollouts


class Batcher:
    """Gathers rollouts for one thread, into a buffer that the next batch overwrites."""

    def __init__(self, model: Model, *, discount: float, trace_decay: float) -> None:
        """``model`` says what memory its batches should lie in; the rest is as in ``lambda_returns``."""
        self._model = model
        self._discount = discount
        self._trace_decay = trace_decay
        self._states: Tensor | None = None  # grown when a batch is larger

    def gather(self, rollouts: Sequence[Rollouts]) -> Batch:
        """Copies rollouts of one layout into one batch. Samples are ordered by rollouts, step, environment."""
        states = self._model.recall(rollouts)
        if states is None:
            states = self._gather_states(rollouts)

        def flat(name: str) -> np.ndarray:
            return np.concatenate([r.field(name) for r in rollouts]).reshape(-1)

        return Batch(
            states=states,
            actions=torch.from_numpy(flat("actions")),
            returns=torch.from_numpy(self._returns(rollouts)),
            live=torch.from_numpy(flat("live")),
            versions=np.repeat(flat("versions"), rollouts[0].count),
        )

    def _gather_states(self, rollouts: Sequence[Rollouts]) -> Tensor:
        states = self._buffer(sum(r.samples for r in rollouts), rollouts[0])
        gathered = states.numpy()
        offset = 0
        for r in rollouts:
            source = r.field("observations")
            gathered[offset : offset + r.samples] = source.reshape(r.samples, *source.shape[2:])
            offset += r.samples
        return states

    def _returns(self, rollouts: Sequence[Rollouts]) -> np.ndarray:
        """[B] targets of all rollouts, computed at once over [T, sum of K]."""
        t_max, count = rollouts[0].layout.t_max, rollouts[0].count

        def by_step(name: str) -> np.ndarray:
            return np.concatenate([r.field(name) for r in rollouts], axis=1)

        with np.errstate(all="ignore"):  # an environment in this thread may have asked numpy to raise
            returns = lambda_returns(
                by_step("rewards"),
                by_step("terminated"),
                by_step("truncated"),
                by_step("values"),
                np.concatenate([r.field("bootstrap_values") for r in rollouts]),
                self._discount,
                self._trace_decay,
            )
        return returns.reshape(t_max, -1, count).swapaxes(0, 1).reshape(-1)

    def _buffer(self, size: int, like: Rollouts) -> Tensor:
        if self._states is None or len(self._states) < size:
            source = like.field("observations")
            self._states = self._model.host_buffer(
                (size, *source.shape[2:]), str(source.dtype), channels_last=like.layout.channels_last
            )
        return self._states[:size]
