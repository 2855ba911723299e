"""Checkpoints: one safetensors file with weights, optimiser statistics, counts and configuration.

No pickle, so that loading one runs no code from it.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ga3c.config import TrainConfig, config_from_json
from ga3c.errors import UsageError
from ga3c.folder import FORMAT, find_checkpoint, list_checkpoints, read_metadata
from ga3c.pictures import picture_in
from ga3c.surroundings import permit, shown

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
      env_steps: agent steps.
      updates: optimiser steps, which is also the model's version.
      time_s: seconds of training.
      score: mean return of the last 100 games, by which the best checkpoint is kept; None before there were so many.
      returns: of the games that were finished last, up to so many.
    """

    env_steps: int = 0
    updates: int = 0
    time_s: float = 0.0
    score: float | None = None
    returns: tuple[float, ...] = ()


_STATISTICS = ({"step", "exp_avg", "exp_avg_sq"}, {"square_average"})  # of Adam and RMSProp, a parameter


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds."""

    config: TrainConfig
    progress: Progress
    network: dict[str, Tensor]
    optimiser: dict[str, Tensor]


def snapshot(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies weights and statistics; the caller holds updates meanwhile (``Model.paused``), but not while it writes."""
    tensors = named_tensors(network, optimiser)
    return {name: t.to("cpu", copy=True).contiguous() for name, t in tensors.items()}


def named_tensors(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, buffers and the optimiser's statistics by the names that they have in a checkpoint."""
    tensors = {f"network.{name}": t for name, t in network.state_dict().items()}
    tensors |= {f"optimiser.{name}": t for name, t in _optimiser_tensors(optimiser).items()}
    return {name: t.detach() for name, t in tensors.items()}


def write_checkpoint(
    folder: Path, config: TrainConfig, progress: Progress, tensors: dict[str, Tensor], keep: int
) -> Path:
    """Writes ``checkpoint-<env_steps>.safetensors`` atomically; the newest ``keep`` stay, and the one of best score.

    Raises:
      OSError: it could not be written; the older ones are untouched.
    """
    metadata = {
        "format": str(FORMAT),
        "config": json.dumps(config.to_json()),
        "env_steps": str(progress.env_steps),
        "updates": str(progress.updates),
        "time_s": repr(progress.time_s),
        "score": "" if progress.score is None else repr(progress.score),
        "returns": json.dumps(progress.returns),
    }
    metadata["sha256"] = _digest(metadata, tensors)
    path = folder / f"checkpoint-{progress.env_steps:012d}.safetensors"
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            permit(file.fileno())
            file.write(save(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(folder)
    # One with a later name is damaged, or the resume would have gone on from it.
    newest_first = [p for p in list_checkpoints(folder)[::-1] if p.name <= path.name]
    best = max(newest_first, key=score_of)
    for old in newest_first[keep:]:
        if old != best:
            old.unlink(missing_ok=True)
    for half_written in folder.glob("checkpoint-*.partial"):  # by a run that was killed
        half_written.unlink(missing_ok=True)
    return path


def _digest(metadata: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """Of all that a file says: safetensors would load a tensor of which a disk has lost a bit."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Makes the new name last through a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def score_of(path: Path) -> float:
    """What ``write_checkpoint`` noted in a file; no score, or a damaged file, is worst: -inf."""
    try:
        return float(read_metadata(path)["score"])
    except (UsageError, KeyError, ValueError):
        return -math.inf


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a file that ``write_checkpoint`` wrote.

    Raises:
      UsageError: it is damaged, or of a newer version; the message names the file and the cause.
    """
    metadata = read_metadata(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{shown(path)} cannot be read as a checkpoint: {error}") from None
    if metadata.pop("sha256", None) != _digest(metadata, tensors):
        raise UsageError(f"{shown(path)} is damaged: its checksum is not that of what it holds")
    try:
        progress = _progress(metadata)
        config = config_from_json(json.loads(metadata["config"]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{shown(path)} cannot be read as a checkpoint: {type(error).__name__}: {error}") from None
    return Checkpoint(config, progress, _with_prefix(tensors, "network."), _with_prefix(tensors, "optimiser."))


def _progress(metadata: dict[str, Any]) -> Progress:
    """Raises KeyError or ValueError where the counts are missing or none."""
    env_steps, updates, time_s = int(metadata["env_steps"]), int(metadata["updates"]), float(metadata["time_s"])
    if env_steps < 0 or updates < 0 or not 0 <= time_s < math.inf:
        raise ValueError(f"{env_steps} steps, {updates} updates and {time_s} s are no counts")
    score, returns = metadata["score"], tuple(map(float, json.loads(metadata["returns"])))
    return Progress(env_steps, updates, time_s, float(score) if score else None, returns)


def read_newest(path: Path, use: Callable[[Checkpoint, Path], T]) -> tuple[T, list[str]]:
    """Hands the newest checkpoint that can be used to ``use``: of a run's folder, or the file itself.

    Returns:
      What ``use`` returned, and a sentence for each newer one that could not be used.

    Raises:
      UsageError: none can; the message is about the newest.
    """
    errors: list[UsageError] = []
    found = [find_checkpoint(path)] if not path.is_dir() else list_checkpoints(path)[::-1] or [find_checkpoint(path)]
    for candidate in found:
        try:
            used = use(read_checkpoint(candidate), candidate)
        except UsageError as error:
            errors.append(error)
            continue
        return used, [str(error) for error in errors]
    raise errors[0]


def channels_last_in(checkpoint: Checkpoint, shape: tuple[int, ...]) -> bool | None:
    """The ``channels_last`` with which a checkpoint's network reads pictures of that shape, as in ``picture_in``.

    Older releases read a last dimension of more than four as the width, even where it is the smaller one.

    Returns:
      False for a checkpoint that was trained that way; otherwise None, which leaves the choice to ``picture_in``.
    """
    picture, mean = picture_in(shape), checkpoint.network.get("mean")
    if picture is None or mean is None or not picture.channels_last or tuple(mean.shape) != shape:
        return None
    return False


def load_network(checkpoint: Checkpoint, network: nn.Module, path: Path) -> None:
    """Copies the weights into ``network``.

    Raises:
      UsageError: they are another network's.
    """
    try:
        network.load_state_dict(checkpoint.network)
    except RuntimeError as error:
        cause = str(error).splitlines()[-1].strip()
        raise UsageError(f"{shown(path)} holds the weights of another network: {cause}") from None


def load_optimiser(checkpoint: Checkpoint, optimiser: torch.optim.Optimizer, path: Path) -> None:
    """Copies statistics into the optimiser's own, which keep their place and layout; another kind's are left out.

    (``Optimizer.load_state_dict`` would put the file's in their place, in the file's layout: fused kernels pair
    elements by where they lie in memory, whatever the strides say.)

    Raises:
      UsageError: they are another network's, or damaged.
    """
    ours, theirs = _optimiser_tensors(optimiser), checkpoint.optimiser
    kinds = [{key.partition(".")[2] for key in tensors} for tensors in (ours, theirs)]
    if not theirs or (kinds[0] != kinds[1] and kinds[1] in _STATISTICS):
        return
    shapes = [{key: tuple(tensor.shape) for key, tensor in tensors.items()} for tensors in (ours, theirs)]
    if shapes[0] != shapes[1]:
        different = sorted(key for key in {*ours, *theirs} if shapes[0].get(key) != shapes[1].get(key))
        raise UsageError(
            f"{shown(path)} holds the optimiser's statistics of another network, or damaged ones: {different[0]}"
        )
    with torch.no_grad():
        for key, tensor in ours.items():
            tensor.copy_(theirs[key])


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": value
        for index, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
    }


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
