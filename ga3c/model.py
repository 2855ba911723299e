"""The one resident network: predicts for every actor, is updated by every trainer.

Who excludes whom:

* Predictions run side by side, and beside the forward and backward pass of an update: all of them only read weights.
* ``optimiser.step()`` and the copy of the weights that predictions compute with are alone: they write in place and
  advance the version, so a prediction belongs to exactly one version.
* Updates exclude each other from forward to step, because autograd raises when another step changes weights in between.

Copies between slabs and batches happen outside every lock. On a CUDA device that several threads use, what the locks
say holds for the device's work too: see ``cuda``.
"""

import copy
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ga3c.choices import LossConfig, Precision
from ga3c.cuda import InOrder, Recordings, Streams
from ga3c.locks import ReadersWriterLock
from ga3c.losses import actor_critic_loss
from ga3c.metrics import UpdateFigures
from ga3c.optim import set_learning_rate
from ga3c.resident import PinnedSlabs, ResidentStates
from ga3c.slabs import Place, Rollouts, Slab

_RESIDENT_SHARE = 0.25  # of a device's free memory, at most, for states that stay there
_LEAST_COPY_BYTES = 1 << 16  # to a device: less is gathered on the host sooner than asked for (an estimate, 5 us)


class Prediction(NamedTuple):
    """Actions for a batch of states: [B] int64; V(s): [B] float32; the version of the model that chose them."""

    actions: NDArray[np.int64]
    values: NDArray[np.float32]
    version: int


@dataclass(frozen=True)
class Batch:
    """What an update learns from, B samples; the states may be on the device already, the rest is on the host.

    Attributes:
      states: [B, ...].
      actions: [B] int64.
      returns: [B] float32, targets.
      live: [B] bool; the others are no transitions.
      versions: [B] int64, the version that chose each action.
    """

    states: Tensor
    actions: Tensor
    returns: Tensor
    live: Tensor
    versions: NDArray[np.int64]

    def lags(self, version: int) -> dict[int, int]:
        """Live samples by their policy lag, in an update of weights of that version."""
        return dict(Counter((version - self.versions)[self.live.numpy()].tolist()))


class NonFiniteLossError(ArithmeticError):
    """The loss is infinite or not a number; the weights are as they were before."""


class Model:
    """A network with its optimiser on a device, safe to use from any number of threads."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        loss: LossConfig,
        *,
        max_grad_norm: float,
        device: torch.device,
        precision: Precision,
        several_threads: bool = False,
    ) -> None:
        """Prepares what threads share.

        Args:
          network: is on ``device`` already.
          optimiser: of its parameters.
          loss: what is minimised.
          max_grad_norm: of the gradient; 0 means no clipping.
          device: where it computes.
          precision: resolved.
          several_threads: predict and update; a CUDA device then works for all of them side by side.
        """
        self.network = network
        self.optimiser = optimiser
        self.version = 0
        self._loss = loss
        self._max_grad_norm = max_grad_norm
        self.precision = precision
        self._device = device
        self._bf16 = precision == "bf16"
        self._weights = ReadersWriterLock()  # guards the weights and the version
        self._updating = threading.Lock()  # guards gradients and optimiser statistics; taken before the next two
        self._stepping = threading.Lock()  # held by a step, or by who wants none; taken before _weights
        self._threads = threading.local()
        self._seeds: torch.Generator | None = None  # of the threads' generators; None is torch's own
        self._served = _with_bf16_weights(network) if self._bf16 else network  # what predicts
        self._order = InOrder()
        self._recordings: Recordings | None = None
        self.resident: ResidentStates | None = None
        self._pinned: PinnedSlabs | None = None
        if several_threads and device.type == "cuda":
            self._order = Streams(device)
            self._recordings = Recordings(self._forward, device)
            free_bytes, _ = torch.cuda.mem_get_info(device)
            self.resident = ResidentStates(device, int(_RESIDENT_SHARE * free_bytes))
            self._pinned = PinnedSlabs(torch.cuda.cudart(), device)  # type: ignore[no-untyped-call]
        if device.type == "cuda":  # cuDNN would compute fp32 in TF32 by itself
            torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
            torch.backends.cudnn.allow_tf32 = precision == "tf32"

    def host_buffer(self, shape: tuple[int, ...], dtype: str, *, channels_last: bool) -> Tensor:
        """Memory on the host to gather a batch in, pinned where copies to the device gain by it.

        With ``channels_last`` images [B, C, H, W] lie in memory as they do in the slabs: a batch is gathered in whole
        rows, and convolutions need no other copy.
        """
        layout = torch.channels_last if channels_last else torch.contiguous_format
        pins = self._device.type == "cuda"
        dtype_of = getattr(torch, dtype)
        return torch.empty(shape, dtype=dtype_of, device="cpu", pin_memory=pins, memory_format=layout)

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the CPU; to another device states cross."""
        return self._device.type == "cpu"

    def reads_in_place(self, places: Sequence[Place]) -> bool:
        """Whether ``predict_in_place`` will do: nobody need gather the states of ``places`` in a ``host_buffer``.

        A CPU computes with states that lie side by side, so that it needs no copy of those of one place. A device
        copies them anyway, from as many places as there are, unless so little lies there that to ask costs more.
        """
        if len(places) > 1 and (self.on_cpu or places[0].arrays.observations.nbytes < _LEAST_COPY_BYTES):
            return False
        for place in places:  # noqa: SIM110  (a generator takes twice as long, and this is asked of every batch)
            if not self._reads(place.slab):
                return False
        return True

    def _reads(self, slab: Slab) -> bool:
        """Whether the device can read a slab's memory."""
        return self.on_cpu or (self._pinned is not None and self._pinned.pin(slab))

    def predict(self, states: Tensor, places: Sequence[Place] = ()) -> Prediction:
        """Draws an action of the policy for each of the states [B, ...] on the host.

        ``places`` are where they come from, in that order, if they are to be trained on: see ``recall``.
        """
        return self._predict([states], places)

    def predict_in_place(self, places: Sequence[Place]) -> Prediction:
        """As ``predict``, for the states of ``places``, one after the other, if ``reads_in_place`` says so."""
        return self._predict([torch.from_numpy(place.arrays.observations) for place in places], places)

    def _predict(self, parts: Sequence[Tensor], places: Sequence[Place]) -> Prediction:
        """``parts`` [n, ...] are the batch, one after the other."""
        with torch.inference_mode(), self._order.predicting():
            self._record_if_needed(parts)
            with self._weights.reading(), self._order.reading():
                outputs, states = self._outputs(parts)
                version = self.version
            if self.resident is not None:
                self.resident.keep(places, states)
            # One transfer brings both. What follows is a few numbers: numpy costs less than launches, or calls that
            # give the interpreter's lock to other threads.
            both = outputs.cpu().numpy()
        logits, values = both[:, :-1], both[:, -1]
        # The Gumbel-max trick: the largest logit - log(Exp(1)) is a sample of the softmax.
        # In float64, where Exp(1) is never 0 and the logarithm finite.
        noise = -np.log(self._generator().standard_exponential(logits.shape))
        return Prediction((logits + noise).argmax(axis=1), values, version)

    def _outputs(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits and values in one tensor [B, A + 1], and the states, both on the device."""
        recording = self._recordings and self._recordings.find(sum(map(len, parts)))
        if recording:
            return recording.replay(parts)
        crossed = [part.to(self._device, non_blocking=True) for part in parts]
        states = crossed[0] if len(crossed) == 1 else torch.cat(crossed)
        return self._forward(states), states

    def _forward(self, states: Tensor) -> Tensor:
        with self._autocast():
            logits, values = self._served(states)
        return torch.cat((logits, values.unsqueeze(1)), dim=1).float()

    def _record_if_needed(self, parts: Sequence[Tensor]) -> None:
        """Before the weights are locked for reading: updates are held meanwhile, whose lock comes first."""
        if self._recordings is not None and self._recordings.wants(count := sum(map(len, parts))):
            with self._updating, self._order.reading():
                self._recordings.record(count, like=parts[0])

    def refusal(self) -> str | None:
        """Why the device does not record forward passes, once, if it does not."""
        return None if self._recordings is None else self._recordings.take_refusal()

    def recall(self, rollouts: Sequence[Rollouts]) -> Tensor | None:
        """The states [B, ...] of complete rollouts, if they have stayed on the device since they were predicted for."""
        if self.resident is None:
            return None
        with self._order.gathering():
            return self.resident.gather(rollouts)

    def seed_actions(self, seed: int) -> None:
        """Seeds the actions that are drawn from here on, whatever user code does to torch's own generator later."""
        self._seeds = torch.Generator().manual_seed(seed)

    def _generator(self) -> np.random.Generator:
        """The thread's own (numpy's are not safe to share), seeded at its first use."""
        if not hasattr(self._threads, "generator"):
            seed = torch.randint(2**31, (), generator=self._seeds, device="cpu")
            self._threads.generator = np.random.default_rng(int(seed))
        generator: np.random.Generator = self._threads.generator
        return generator

    def update(self, batch: Batch, learning_rate: float) -> UpdateFigures:
        """One optimiser step on a batch.

        Raises:
          NonFiniteLossError: with the statistics of the batch; nothing was changed.
        """
        # Code of the user's network may have left another mode behind in this thread.
        with self._updating, self._order.updating(), torch.enable_grad():
            states, actions, returns, live = (
                tensor.to(self._device, non_blocking=True)
                for tensor in (batch.states, batch.actions, batch.returns, batch.live)
            )
            with self._autocast():
                logits, values = self.network(states)
            loss = actor_critic_loss(logits, values, actions, returns, live, self._loss)
            self.network.zero_grad(set_to_none=True)
            loss.total.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self._max_grad_norm or float("inf"))
            figures = torch.stack((loss.policy_loss, loss.value_loss, loss.entropy, norm)).tolist()
            if not np.isfinite(figures).all():
                raise NonFiniteLossError(_describe(figures, batch))
            set_learning_rate(self.optimiser, learning_rate)
            version = self._step()
        lags = batch.lags(version)
        policy_loss, value_loss, entropy, gradient_norm = figures
        return UpdateFigures(
            samples=sum(lags.values()),
            policy_loss=policy_loss,
            value_loss=value_loss,
            entropy=entropy,
            gradient_norm=gradient_norm,
            learning_rate=learning_rate,
            lags=lags,
        )

    def _step(self) -> int:
        """Applies the gradients and returns the version that they were applied to; the caller holds updates."""
        with self._stepping, self._weights.writing(), self._order.writing():
            self.optimiser.step()
            self._publish()
            self.version += 1
            return self.version - 1

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Holds predictions and updates while the caller changes the network's weights or buffers by hand."""
        with self._updating, self._stepping, self._weights.writing():
            self._order.finish()
            yield
            self._publish()
            self._order.finish()

    def _publish(self) -> None:
        """Copies the weights to where predictions read them; the caller holds the lock for writing."""
        if self._served is self.network:
            return
        pairs = list(zip(self._served.parameters(), self.network.parameters(), strict=True))
        with torch.no_grad():
            for dtype in {served.dtype for served, _ in pairs}:  # an older torch takes one for all, on CUDA
                same = [pair for pair in pairs if pair[0].dtype == dtype]
                torch._foreach_copy_([served for served, _ in same], [ours for _, ours in same])
            for served, ours in zip(self._served.buffers(), self.network.buffers(), strict=True):
                served.copy_(ours)

    @contextmanager
    def paused(self, timeout_s: float) -> Iterator[None]:
        """Holds optimiser steps, so that weights, statistics and version belong together while they are read.

        Predictions, and what an update computes before its step, go on meanwhile, however long it takes.

        Raises:
          TimeoutError: a step has not ended in time.
        """
        if not self._stepping.acquire(timeout=timeout_s):
            raise TimeoutError(f"the weights have been written to for {timeout_s:g} s")
        try:
            self._order.settle()
            yield
        finally:
            self._stepping.release()

    def _autocast(self) -> torch.autocast:
        # The cache of casted weights is shared by threads: with it, a prediction during an update would read weights
        # from before the step (measured: 244 where 0 was right).
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16, cache_enabled=False)


def _with_bf16_weights(network: nn.Module) -> nn.Module:
    """A copy that spares autocast the casts of each prediction: its layers' weights are bf16 already."""
    copied = copy.deepcopy(network)
    for layer in copied.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.to(torch.bfloat16)
    return copied


def _describe(figures: list[float], batch: Batch) -> str:
    names = ("policy_loss", "value_loss", "entropy", "gradient_norm")
    parts = [f"{name} {figure:g}" for name, figure in zip(names, figures, strict=True)]
    returns = batch.returns[batch.live]
    parts += [f"{len(returns)} live samples", f"returns {returns.min():g} to {returns.max():g}"]
    states = batch.states.float()
    parts += [f"states {states.min():g} to {states.max():g}"]
    return "the loss is not finite: " + ", ".join(parts)
