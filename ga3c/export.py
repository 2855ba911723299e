"""Writes a trained policy to a file that runs without this package, and holds the file against the network.

What is exported maps observations [N, ...], as the environment gives them, to probabilities [N, A] and values [N], for
any N. It computes in float32.
"""

import contextlib
import io
import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import ga3c
from ga3c.choices import ExportFormat
from ga3c.device import plain_torch
from ga3c.envs import env_seeds, envs_in_one_process, make_env, random_states
from ga3c.errors import UsageError
from ga3c.policy import Judgement, Policy, load_policy
from ga3c.surroundings import permit, shown

EXTRA = ("onnx", "onnxruntime", "onnxscript")
_BATCHES = (1, 2, 5, 16)  # that are tried, each on other states of a little random play
_STEPS = 1600  # of all environments together
_TOLERANCE = 1e-3  # what other kernels' rounding may make of probabilities and values
_INPUT = "observations"
_SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "torch": ".pt2"}

Judge = Callable[[NDArray[Any]], Judgement]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
      path: the file.
      checkpoint: whose policy it is.
      states: of random play that it was tried on.
      difference: largest between its outputs and the network's; relative, where those are larger than 1.
    """

    path: Path
    checkpoint: Path
    states: int
    difference: float

    def __str__(self) -> str:
        return (
            f"{shown(self.path)}: the policy of {shown(self.checkpoint)};"
            f" on {self.states} states its outputs differ from the network's by {self.difference:.1g} at most"
        )


class _Judging(nn.Module):
    """A network whose outputs are what somebody who plays needs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        logits, values = self.network(observations)
        return torch.softmax(logits.float(), dim=1), values.float()


def export(
    path: str | PathLike[str], *, format: ExportFormat = "onnx", out: str | PathLike[str] | None = None
) -> Exported:
    """Exports the policy of a checkpoint, or of the newest in a run's folder.

    Args:
      path: of the checkpoint or the folder.
      format: ``onnx``, or ``torch``: a program that ``torch.export.load`` reads.
      out: the file, ``.onnx`` or ``.pt2``; ``policy`` beside the checkpoint where nothing is said. One that is there is
        replaced.

    Raises:
      UsageError: there is no such checkpoint, its network cannot be exported, or the file cannot be written.
    """
    if out is not None and not Path(out).is_dir() and Path(out).suffix != _SUFFIXES[format]:
        raise UsageError(f"--out: got {out}; a name that ends in {_SUFFIXES[format]} would be right for {format}")
    if format == "onnx":
        _check_extra()
    chosen = None if out is None else Path(out).absolute()  # before code of the user's is run
    policy = load_policy(Path(path), device="cpu")
    file = chosen or policy.path.with_name(f"policy{_SUFFIXES[format]}")
    _check_writable(file)
    states = _random_play(policy)
    write = {"onnx": _to_onnx, "torch": _to_torch}[format]
    try:
        with plain_torch(torch.float32), _without_exporters_words():
            content, judge = write(_trace(policy, states), _about(policy))
    except Exception as error:  # whatever a network of the user's has that an exporter does not know
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"network {policy.config.network!r} cannot be exported as {format}: {type(error).__name__}: {reason}"
        ) from None
    difference = float(np.max(list(_differences(policy, judge, states))))  # which lets no NaN slip through
    if not difference <= _TOLERANCE:
        raise UsageError(
            f"network {policy.config.network!r} exported as {format} gives other outputs than the network: they differ"
            f" by {difference:.3g}, and {_TOLERANCE:g} would be right; nothing was written"
        )
    _write(file, content)
    return Exported(file, policy.path, sum(_BATCHES), difference)


@contextlib.contextmanager
def _without_exporters_words() -> Iterator[None]:
    """They speak of themselves, and of packages that nobody needs here; what they cannot do, they raise."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check_extra() -> None:
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise UsageError(f"ONNX needs {' and '.join(missing)}; pip install 'ga3c[export]' would be right")


def _check_writable(file: Path) -> None:
    """Before the seconds that an export takes."""
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"--out: {file} cannot be written to; a file in a folder that exists would be right")


def _random_play(policy: Policy) -> NDArray[Any]:
    config, wanted = policy.config, max(_BATCHES)
    num_envs = envs_in_one_process(config.env_config(), wanted, config.envs_per_actor)
    steps = math.ceil(_STEPS / num_envs)
    env = make_env(config.env_config(), env_seeds(config.seed, 0, 0, num_envs))
    try:
        return random_states(env, policy.spec.num_actions, config.seed, steps)
    finally:
        env.close()


def _about(policy: Policy) -> dict[str, str]:
    """What the file says of itself."""
    return {
        "env": policy.config.env,
        "protocol": policy.spec.protocol,
        "actions": str(policy.spec.num_actions),
        "env_steps": str(policy.env_steps),
        "ga3c": ga3c.__version__,
    }


def _trace(policy: Policy, states: NDArray[Any]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    for parameter in policy.network.parameters():  # laid out as whoever reads the file expects them
        parameter.data = parameter.data.contiguous()
    return torch.export.export(
        _Judging(policy.network).eval(), (torch.from_numpy(states[:2]),), dynamic_shapes={_INPUT: {0: batch}}
    )


def _to_torch(program: torch.export.ExportedProgram, about: dict[str, str]) -> tuple[bytes, Judge]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"policy.json": json.dumps(about)})
    module = torch.export.load(io.BytesIO(buffer.getvalue())).module()

    def judge(states: NDArray[Any]) -> Judgement:
        with torch.inference_mode():
            probabilities, values = module(torch.from_numpy(states))
        return Judgement(probabilities.numpy(), values.numpy())

    return buffer.getvalue(), judge


def _to_onnx(program: torch.export.ExportedProgram, about: dict[str, str]) -> tuple[bytes, Judge]:
    import onnxruntime

    exported = torch.onnx.export(
        program, dynamo=True, input_names=[_INPUT], output_names=list(Judgement._fields), verbose=False
    )
    assert exported is not None
    exported.model.metadata_props.update(about)
    content = exported.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda states: Judgement(*session.run(list(Judgement._fields), {_INPUT: states}))


def _differences(policy: Policy, judge: Judge, states: NDArray[Any]) -> Iterator[float]:
    """Between a file's outputs and the network's, relative to the network's where those are larger than 1."""
    spread = np.array_split(states, len(_BATCHES))  # over the play, so that no state is tried twice
    for part, size in zip(spread, _BATCHES, strict=True):
        batch = np.ascontiguousarray(part[-size:], policy.spec.observation_dtype)
        for ours, theirs in zip(policy.judge(batch), judge(batch), strict=True):
            if ours.shape != theirs.shape:
                yield float("inf")
            else:
                yield float(np.max(np.abs(ours - theirs) / np.maximum(1, np.abs(ours))))


def _write(file: Path, content: bytes) -> None:
    """Atomically."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        with partial.open("wb") as opened:
            permit(opened.fileno())
            opened.write(content)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UsageError(f"--out: {file} cannot be written to: {error.strerror}") from None
