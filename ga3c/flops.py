"""What a network costs: its parameters, and the operations of a forward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ga3c.errors import UsageError
from ga3c.networks import MLP, ConvNetwork
from ga3c.user_code import USER_ERRORS


class _FlopCounter(TorchFunctionMode):
    """Counts what convolutions and linear layers take, which is all that the package's own networks are made of.

    Loading ``torch.utils.flop_counter``'s counter loads torch's compiler: two seconds of a run's start.
    """

    def __init__(self) -> None:
        super().__init__()
        self._total = 0

    def get_total_flops(self) -> int:
        """As torch's."""
        return self._total

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **kwargs or {})
        if function in (torch.conv2d, F.linear):
            weight: Tensor = args[1]
            self._total += 2 * result.numel() * weight[0].numel()
        return result


def _flop_counter(network: nn.Module) -> Any:
    if isinstance(network, ConvNetwork | MLP):
        return _FlopCounter()
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False)


def cost(network: nn.Module, states: Tensor, num_actions: int) -> tuple[int, float]:
    """Tries the network on a state and returns (parameters, MFLOP a state of a forward pass).

    A multiply-add is two operations. ``states`` is [1, ...], on the host, of the type that the network will be given.

    Raises:
      UsageError: it fails, or does not return logits [1, A] and values [1].
    """
    flops = []
    try:
        for batch in (states, torch.cat((states, states))):
            with torch.no_grad(), _flop_counter(network) as counter:
                logits, values = network(batch)
            flops.append(counter.get_total_flops())
        shapes = tuple(logits.shape), tuple(values.shape)
    except USER_ERRORS as error:
        raise UsageError(f"the network fails on states {list(states.shape)}: {type(error).__name__}: {error}") from None
    if shapes != ((2, num_actions), (2,)):
        raise UsageError(
            f"the network returns shapes {shapes[0]} and {shapes[1]} for two states;"
            f" logits (2, {num_actions}) and values (2,) are needed"
        )
    # The second state's share: work done once a batch is not a state's.
    return sum(p.numel() for p in network.parameters()), (flops[1] - flops[0]) / 1e6
