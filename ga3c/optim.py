"""Optimisers, with their statistics from the start: RMSProp as the A3C paper and TensorFlow 1 have it, and Adam."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ga3c.choices import OptimiserName


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


class Adam(torch.optim.Optimizer):
    """Adam (arXiv:1412.6980, algorithm 1) by torch's fused kernel.

    ``torch.optim.Adam`` is the same, bit for bit; but its step loads torch's compiler, and its statistics are made
    by its first step, when it is too late to share them.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, betas: tuple[float, float], epsilon: float) -> None:
        """``epsilon`` is added to the root."""
        super().__init__(params, {"lr": lr, "betas": betas, "epsilon": epsilon})
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter, requires_grad=False)
                state["exp_avg_sq"] = torch.zeros_like(parameter, requires_grad=False)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; ``closure`` is not supported."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            states = [self.state[p] for p in parameters]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1.0)
            torch._fused_adam_(
                parameters,
                [p.grad for p in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=0.0,
                eps=group["epsilon"],
                amsgrad=False,
                maximize=False,
            )


def _without_the_compiler() -> None:
    """Spares each process that makes an optimiser the import of torch's compiler: a second, and 80 MB.

    torch imports it to mark these methods as not to be compiled, when one is first called. Nothing compiles them here.
    The mark is torch's own, and private: a torch that has another is slower to start, and no worse.
    """
    methods = torch.optim.Optimizer
    for method in (methods.add_param_group, methods.zero_grad, methods.state_dict, methods.load_state_dict):
        original = getattr(method, "__wrapped__", None)
        if original is not None:
            original.__dynamo_disable = original


def build_optimiser(
    name: OptimiserName, params: Iterable[Tensor], lr: float, decay: float, epsilon: float
) -> torch.optim.Optimizer:
    """``decay`` is RMSProp's, or Adam's second one; ``epsilon`` is inside RMSProp's root and outside Adam's."""
    _without_the_compiler()
    if name == "rmsprop":
        # TensorFlow 1 starts the average at 1, so that the first updates are small.
        return RMSProp(params, lr, decay, epsilon, initial_square=1.0)
    return Adam(params, lr, (0.9, decay), epsilon)


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Sets the rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = lr
