"""Optimisers: RMSProp as the A3C paper and TensorFlow 1 have it, and torch's Adam."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

OptimiserName = Literal["adam", "rmsprop"]


class RMSProp(torch.optim.Optimizer):
    """g = decay * g + (1 - decay) * grad^2; theta = theta - lr * grad / sqrt(g + epsilon).

    The epsilon is *inside* the square root (arXiv:1602.01783, equation S2); ``torch.optim.RMSprop`` has it outside,
    which with the usual 0.1 is another algorithm. ``g`` starts at ``initial_square``: TensorFlow 1 starts at 1, the
    paper at 0.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, decay: float, epsilon: float, initial_square: float = 0.0
    ) -> None:
        """All arguments as in the formula."""
        super().__init__(params, {"lr": lr, "decay": decay, "epsilon": epsilon})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["square_average"] = torch.full_like(parameter, initial_square)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; ``closure`` is not supported."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            squares = [self.state[p]["square_average"] for p in parameters]
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["decay"])
            denominators = torch._foreach_add(squares, group["epsilon"])
            torch._foreach_sqrt_(denominators)
            torch._foreach_addcdiv_(parameters, gradients, denominators, value=-group["lr"])


def initialise_statistics(optimiser: torch.optim.Optimizer) -> None:
    """Makes the statistics that torch's Adam would make at its first step, so that they can be shared before it."""
    if not isinstance(optimiser, torch.optim.Adam):
        return
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            optimiser.state[parameter].setdefault("step", torch.zeros((), device=parameter.device))
            for name in ("exp_avg", "exp_avg_sq"):
                optimiser.state[parameter].setdefault(name, torch.zeros_like(parameter, requires_grad=False))


def build_optimiser(
    name: OptimiserName, params: Iterable[Tensor], lr: float, decay: float, epsilon: float
) -> torch.optim.Optimizer:
    """``decay`` is RMSProp's, or Adam's second one; ``epsilon`` is inside RMSProp's root and outside Adam's."""
    if name == "rmsprop":
        # TensorFlow 1 starts the average at 1, so that the first updates are small.
        return RMSProp(params, lr, decay, epsilon, initial_square=1.0)
    return torch.optim.Adam(params, lr, betas=(0.9, decay), eps=epsilon, fused=True)


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


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Sets the rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = lr
