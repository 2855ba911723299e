"""Measures what predictions and updates take on the device in hand: curves for ``--device simulated:FILE``."""

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ga3c.build import build_model
from ga3c.config import TrainConfig
from ga3c.curves import Curve, Line
from ga3c.envs import EnvSpec
from ga3c.errors import UsageError
from ga3c.machine import machine, versions
from ga3c.model import Batch, Model
from ga3c.slabs import SlabLayout

PREDICTION_BATCHES = (1, 4, 16, 64, 128)
TRAINING_BATCHES = (5, 20, 80, 160)
_SECONDS = 0.4  # for each batch size
_FEWEST = 5  # calls, however long they take


def measure(config: TrainConfig, spec: EnvSpec) -> Curve:
    """The curve of the network and device that a configuration says, on made-up states.

    Raises:
      UsageError: the network, the device or the precision cannot be had.
    """
    model, _ = build_model(config, spec)
    draw = torch.Generator().manual_seed(1)

    def states(size: int) -> torch.Tensor:
        layout = SlabLayout.of(spec, segments=1, t_max=1, envs=size, on_cpu=model.on_cpu)
        shape = (size, *layout.observation_shape)
        made = model.host_buffer(shape, layout.observation_dtype, channels_last=layout.channels_last)
        return made.copy_(torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8))

    predictions = {n: _median_s(_predicting(model, states(n))) for n in PREDICTION_BATCHES}
    updates = {n: _median_s(_updating(model, states(n), spec.num_actions)) for n in TRAINING_BATCHES}
    return Curve(fit_line(list(predictions.items())), fit_line(list(updates.items())))


def _predicting(model: Model, states: torch.Tensor) -> Callable[[], Any]:
    return lambda: model.predict(states)


def _updating(model: Model, states: torch.Tensor, num_actions: int) -> Callable[[], Any]:
    size = len(states)
    batch = Batch(
        states=states,
        actions=torch.arange(size) % num_actions,
        returns=torch.zeros(size),
        live=torch.ones(size, dtype=torch.bool),
        versions=np.zeros(size, np.int64),
    )
    return lambda: model.update(batch, 1e-6)


def _median_s(call: Callable[[], Any]) -> float:
    """Seconds of a call, once it is warm. Each ends with a copy to the host, so that nothing is pending."""
    call()
    took: list[float] = []
    until = time.perf_counter() + _SECONDS
    while len(took) < _FEWEST or time.perf_counter() < until:
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def fit_line(measured: Sequence[tuple[int, float]]) -> Line:
    """The line with the least squares of *relative* errors, so that small batches count as much as large ones.

    Args:
      measured: (states, seconds) of at least two batch sizes; neither coefficient becomes negative.
    """
    sizes, seconds = (np.array(column, float) for column in zip(*measured, strict=True))
    columns = np.stack((np.ones_like(sizes), sizes), axis=1) / seconds[:, None]
    base, per_state = np.linalg.lstsq(columns, np.ones_like(sizes), rcond=None)[0]
    if base < 0:
        base, per_state = 0.0, float(np.median(seconds / sizes))
    if per_state < 0:
        base, per_state = float(np.median(seconds)), 0.0
    return Line(float(base), float(per_state))


def check_writable(path: Path) -> None:
    """Finds out before the time for measuring is spent.

    Raises:
      UsageError: a file cannot be written there.
    """
    folder = path.parent
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"--out: {path} cannot be written to; a file in a folder that exists would be right")


def write_curves(path: Path, device: str, curves: dict[str, Curve]) -> None:
    """Writes a file for ``--device simulated:FILE``.

    Raises:
      UsageError: it cannot be written.
    """
    about = {"device": device, "machine": machine(), "versions": versions()}
    values = {
        "source": f"Measured by ga3c networks --fit: {json.dumps(about)}",
        "curves": {network: dataclasses.asdict(curve) for network, curve in curves.items()},
    }
    try:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out: {path} cannot be written to: {error.strerror}") from None
