"""What can be chosen of the algorithm and its device: words and numbers, without torch.

Options are read and checked with these alone: a slip is answered before the seconds that torch takes to load.
"""

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ga3c.curves import is_simulated
from ga3c.errors import UsageError, nearest
from ga3c.pictures import is_stack_of_pictures, picture_in
from ga3c.user_code import USER_ERRORS, import_module

Precision = Literal["auto", "fp32", "tf32", "bf16"]
Initialisation = Literal["orthogonal", "uniform"]
OptimiserName = Literal["adam", "rmsprop"]
Reduction = Literal["mean", "sum"]
ExportFormat = Literal["onnx", "torch"]
Dynamic = Literal["off", "climb", "paper"]
NETWORK_NAMES = ("small", "nature", "large-s3", "large", "large-s1", "mlp")


@dataclass(frozen=True)
class LossConfig:
    """How the terms are put together.

    Attributes:
      entropy_cost: weight of the entropy bonus, per sample.
      value_cost: weight of the squared error; the paper's 0.5 * sum of squares is 0.5.
      reduction: over the live samples of a batch; the released code sums.
      log_floor: 0 for log_softmax; the released code's log(max(pi, 1e-6)) is 1e-6. Where the floor holds, no gradient
        flows.
      normalise_advantages: scale a batch's advantages to mean 0 and standard deviation 1.
    """

    entropy_cost: float
    value_cost: float
    reduction: Reduction
    log_floor: float
    normalise_advantages: bool


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run: annealed to 0 over its total of steps, else over its minutes, else constant."""

    learning_rate: float
    total_steps: int | None = None
    total_s: float | None = None

    def rate(self, env_steps: int, time_s: float) -> float:
        """After so many agent steps and seconds."""
        share = env_steps / self.total_steps if self.total_steps else time_s / self.total_s if self.total_s else 0.0
        return self.learning_rate * max(0.0, 1.0 - share)


def find_factory(name: str) -> Callable[..., Any]:
    """Loads the user's own network, given as ``module:callable``.

    Raises:
      UsageError: ``name`` is something else, or cannot be loaded.
    """
    module, _, attribute = name.partition(":")
    if not attribute:
        known = ", ".join(NETWORK_NAMES)
        raise UsageError(
            f"unknown network {name!r}{nearest(name, list(NETWORK_NAMES))}; known: {known}, or module:callable"
        )
    try:
        factory: Callable[..., Any] = getattr(import_module(module), attribute)
    except USER_ERRORS as error:
        raise UsageError(f"network {name!r} cannot be loaded: {type(error).__name__}: {error}") from None
    if not callable(factory):
        raise UsageError(f"network {name!r} is a {type(factory).__name__}; something to call is needed")
    return factory


def check_network(name: str) -> None:
    """Refuses what names no network.

    Raises:
      UsageError: it is neither one of the package's nor ``module:callable``.
    """
    if name not in NETWORK_NAMES:
        find_factory(name)


def check_states(network: str, shape: tuple[int, ...]) -> None:
    """Refuses states that the package's network of that name is not made for.

    Raises:
      UsageError: with the shape.
    """
    if network not in NETWORK_NAMES:
        return
    if is_stack_of_pictures(shape):
        raise UsageError(
            f"network {network!r}: got states {list(shape)}; expected a vector, or one picture: [H, W], [C, H, W] or"
            " [H, W, C] (frames one after another are channels). A network of your own, --network module:callable,"
            " takes any shape"
        )
    if network != "mlp" and picture_in(shape) is None:
        raise UsageError(
            f"network {network!r}: got states {list(shape)}; expected a picture ([H, W], [C, H, W] or [H, W, C]);"
            " try mlp"
        )


def check_device(name: str) -> None:
    """Refuses what cannot name a device.

    Raises:
      UsageError: it is no such name.
    """
    if not (is_simulated(name) or re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d?))?", name)):
        raise UsageError(f"--device: got {name!r}; auto, cpu, cuda, cuda:N or simulated:NAME would be right")


def check_precision(precision: Precision, device: str) -> None:
    """Refuses what the device is known not to compute in, before torch is asked.

    Raises:
      UsageError: with the device.
    """
    if precision == "tf32" and (device == "cpu" or (device == "auto" and not gpu_driver_is_there())):
        raise UsageError("--precision: tf32 needs --device cuda, got cpu; fp32 or bf16 would be right")


def computes_on_cpu(device: str) -> bool:
    """Whether the model takes the cores on which the environments are stepped; torch is asked only if need be."""
    if device != "auto":
        return device == "cpu"
    if not gpu_driver_is_there():
        return True
    import torch

    return not torch.cuda.is_available()


def gpu_driver_is_there() -> bool:
    """Whether torch might find a GPU: without NVIDIA's or AMD's driver it will not, and need not be asked."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True
