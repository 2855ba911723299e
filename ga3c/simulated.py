"""A device that only waits: ``--device simulated:NAME``.

Predictions and updates take the time that a latency curve says and use no CPU; actions are random, nothing is learnt.
The host's work is all there: batches are gathered, replies written, rollouts handed on. So it shows, without a GPU,
whether the host is fast enough to feed a device like that, and what the modes would make of it.
"""

import fcntl
import math
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ga3c.choices import LossConfig
from ga3c.curves import Curve
from ga3c.metrics import UpdateFigures
from ga3c.model import Batch, Model, Prediction
from ga3c.slabs import Place, Rollouts, Slab

_TURN_S = 1e-3
_DRAWN = 1 << 14  # actions at a time, at least


class Timeline:
    """When the one device is free. Requests of all threads and processes are served one at a time, as they come.

    A long one is served in turns of a millisecond, between which others are: a device goes from one stream's kernel to
    another's, and a prediction does not wait for the whole of an update.

    The time until which it is taken lies in shared memory; the lock on it is the kernel's, which frees it if the holder
    is killed. It is held for the reservation only, never while waiting.
    """

    def __init__(self, fd: int | None = None) -> None:
        """Keeps its 8 bytes at the start of the memory behind ``fd``; without one it serves this process alone."""
        own = os.memfd_create("ga3c-timeline", os.MFD_CLOEXEC) if fd is None else fd
        if fd is None:
            os.ftruncate(own, mmap.PAGESIZE)
        # A description of its own: locks on one that is shared through a fork would exclude nobody.
        self._file = os.open(f"/proc/self/fd/{own}", os.O_RDWR | os.O_CLOEXEC)
        if fd is None:
            os.close(own)
        self._memory = mmap.mmap(self._file, mmap.PAGESIZE)
        self._threads = threading.Lock()  # guards the reservation against other threads; the file lock, processes

    @contextmanager
    def _reserving(self) -> Iterator[None]:
        with self._threads:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def serve(self, seconds: float) -> None:
        """Waits until the device has been busy with it for ``seconds``; no time needs no device."""
        done_at = time.monotonic()
        while seconds > 0:
            turn = min(seconds, _TURN_S)
            seconds -= turn
            with self._reserving():
                (free_at,) = struct.unpack_from("d", self._memory)
                # From the end of its last turn, not from now: a thread that wakes late is no pause of the device.
                done_at = max(free_at, done_at) + turn
                struct.pack_into("d", self._memory, 0, done_at)
            time.sleep(max(0.0, done_at - time.monotonic()))


class SimulatedModel(Model):
    """What a ``Model`` does to the rest of the system, without doing it."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        loss: LossConfig,
        *,
        curve: Curve,
        timeline: Timeline,
        num_actions: int,
        several_threads: bool = False,
    ) -> None:
        """``network`` and ``optimiser`` stay as they are; actions are drawn from ``num_actions``.

        With ``several_threads`` states stay where they were predicted for until they are trained on, as on a GPU.
        """
        super().__init__(network, optimiser, loss, max_grad_norm=0.0, device=torch.device("cpu"), precision="fp32")
        self._curve = curve
        self._timeline = timeline
        self._num_actions = num_actions
        self._keeps_states = several_threads

    @property
    def on_cpu(self) -> bool:
        """It stands for a device that states cross to."""
        return False

    def _reads(self, slab: Slab) -> bool:
        """As a CUDA device reads slabs that are pinned."""
        del slab
        return True

    def recall(self, rollouts: Sequence[Rollouts]) -> Tensor | None:
        """As many as the states that are there: one byte, again and again."""
        if not self._keeps_states:
            return None
        samples = sum(r.samples for r in rollouts)
        return torch.zeros(1, dtype=torch.uint8, device="cpu").expand(samples)

    def predict(self, states: Tensor, places: Sequence[Place] = ()) -> Prediction:
        """Random actions, values of 0, after the time that a batch of ``states`` takes."""
        del places  # they stay where they are: there is no device
        return self._answer(len(states))

    def predict_in_place(self, places: Sequence[Place]) -> Prediction:
        """As ``predict``."""
        return self._answer(sum([place.envs for place in places]))

    def _answer(self, count: int) -> Prediction:
        version = self.version
        self._timeline.serve(self._curve.prediction.seconds(count))
        return Prediction(*self._draw(count), version)

    def _draw(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Actions and values, from a thread's stock: they are the device's work, which should take the host no time."""
        own = self._threads
        if not hasattr(own, "actions") or own.used + count > len(own.actions):
            own.used = 0
            own.actions = self._generator().integers(0, self._num_actions, max(count, _DRAWN))
            own.values = np.zeros(len(own.actions), np.float32)
        rows = slice(own.used, own.used + count)
        own.used = rows.stop
        return own.actions[rows], own.values[rows]

    def update(self, batch: Batch, learning_rate: float) -> UpdateFigures:
        """The next version, after the time that the batch takes."""
        with self._updating:
            self._timeline.serve(self._curve.training.seconds(len(batch.versions)))
            version = self._step()
        lags = batch.lags(version)
        return UpdateFigures(
            samples=sum(lags.values()),
            policy_loss=math.nan,
            value_loss=math.nan,
            entropy=math.nan,
            gradient_norm=math.nan,
            learning_rate=learning_rate,
            lags=lags,
        )

    def _step(self) -> int:
        self.version += 1
        return self.version - 1
