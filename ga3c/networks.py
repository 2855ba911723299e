"""Policy-and-value networks. Pure torch; what they are trained with and where they run is not their business.

A network maps states [B, ...] to (logits [B, A], values [B]). States are scaled inside the first layer, so that bytes
cross to the device: see ``scaling``. Until ``scale_by`` or ``normalise`` is called, a network assumes that bytes lie in
0..255; a convolutional network assumes it of floats too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ga3c.choices import Initialisation, find_factory
from ga3c.errors import UsageError
from ga3c.pictures import is_picture, picture_in
from ga3c.scaling import LEAST_DEVIATION, Scaled
from ga3c.user_code import USER_ERRORS, contained

Factory = Callable[..., nn.Module]  # of an observation's shape and the number of actions

_SMALL_PART = 1 / 4  # of the bounds of bytes: where they use less, preset fast learns slowly or not at all
_MANY = 12  # states from which on a convolution of the mean image is cheaper than its subtraction, on a CPU


@dataclass(frozen=True)
class Conv:
    """A convolution without padding, followed by ReLU."""

    channels: int
    kernel: int
    stride: int


class ConvNetwork(Scaled):
    """Convolutions, one dense layer, then policy and value heads on the same features.

    Pictures of any type are scaled: bytes and floats of the same numbers give the same.
    """

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        num_actions: int,
        convs: tuple[Conv, ...],
        dense: int,
        *,
        channels_last: bool | None = None,
    ) -> None:
        """``observation_shape`` is [C, H, W], [H, W, C] or [H, W]: as ``picture_in`` reads it with ``channels_last``.

        Raises:
          UsageError: a state of that shape is no picture, or too small for the convolutions.
        """
        picture = picture_in(observation_shape, channels_last=channels_last)
        if picture is None:
            raise UsageError(
                f"a convolutional network got states {list(observation_shape)}; expected [H, W], [C, H, W] or"
                " [H, W, C]; try mlp"
            )
        channels, height, width, comes_last = picture
        super().__init__(torch.zeros(channels, height, width), torch.tensor(1 / 255.0))
        self._has_channels = len(observation_shape) == 3
        self._channels_come_last = comes_last
        layers = []
        for conv in convs:
            layers.append(nn.Conv2d(channels, conv.channels, conv.kernel, conv.stride))
            channels = conv.channels
            height, width = ((side - conv.kernel) // conv.stride + 1 for side in (height, width))
        if height < 1 or width < 1:
            raise UsageError(f"states {list(observation_shape)} are too small for this network's convolutions")
        self.convs = nn.ModuleList(layers)
        self.dense = nn.Linear(channels * height * width, dense)
        self.policy = nn.Linear(dense, num_actions)
        self.value = nn.Linear(dense, 1)

    def _channels_first(self, states: Tensor) -> Tensor:
        if not self._has_channels:
            return states.unsqueeze(1)
        return states.permute(0, 3, 1, 2) if self._channels_come_last else states

    def _values(self, states: Tensor) -> Tensor:
        return self._channels_first(states).float()

    def _first(self, conv: nn.Conv2d, states: Tensor) -> Tensor:
        """The first convolution, of states [B, C, H, W] less the mean image."""
        mean, weight = self.get_buffer("mean"), conv.weight * self.get_buffer("scale")
        # What is exported or compiled serves batches of any size: it has no branch on it.
        few = not torch.compiler.is_compiling() and len(states) < _MANY
        if few:
            states = states - mean
        # Widening before changing the layout is twice as fast as the two in one copy, measured on a CPU.
        states = states.to(_compute_dtype(states.device.type)).contiguous(memory_format=torch.channels_last)
        features = F.conv2d(states, weight, conv.bias, conv.stride)
        if few:
            return features
        # conv(x - mean) = conv(x) - conv(mean), and that is one convolution instead of B subtractions.
        return features - F.conv2d(mean.unsqueeze(0).to(weight.dtype), weight, None, conv.stride)

    def _first_in_blocks(self, conv: nn.Conv2d, states: Tensor) -> Tensor:
        """The same, with a gradient that costs less; the mean is subtracted, since conv(mean) would need another."""
        side, dtype = conv.stride[0], _compute_dtype(states.device.type)
        mean, weight = self.get_buffer("mean").unsqueeze(0), conv.weight * self.get_buffer("scale")
        centred = blocks(states, side).to(dtype).sub_(blocks(mean, side).to(dtype))
        return F.conv2d(centred, blocks(weight, side), conv.bias)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures [B, ...] -> logits [B, A], values [B]."""
        states = self._channels_first(states)
        first, *rest = self.convs
        assert isinstance(first, nn.Conv2d)
        features = (
            self._first_in_blocks(first, states) if _trains_in_blocks(first, states) else self._first(first, states)
        )
        features = F.relu(features, inplace=True)
        for conv in rest:
            features = F.relu(conv(features), inplace=True)
        # Flattened in the order in which channels_last has them in memory: no copy, as in TensorFlow.
        features = F.relu(self.dense(features.permute(0, 2, 3, 1).flatten(1)), inplace=True)
        return self.policy(features), self.value(features).squeeze(1)


def _trains_in_blocks(conv: nn.Conv2d, states: Tensor) -> bool:
    """Whether the gradient of the first convolution is cheaper so: on a CPU, where blocks tile states and kernel."""
    side, kernel = conv.stride[0], conv.kernel_size[0]
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and (states.device.type, states.dtype) == ("cpu", torch.uint8)
        and side > 1
        and not any(length % side for length in (kernel, *states.shape[2:]))
    )


def blocks(images: Tensor, side: int) -> Tensor:
    """[B, C, H, W] -> [B, side * side * C, H / side, W / side], channels last: the pixels of a block are channels.

    A convolution whose stride is ``side`` becomes one of stride 1 with so many more channels, which CPUs have
    instructions for: of four channels they use a fraction (measured: `benchmarks/README.md`).
    """
    count, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).reshape(count, height // side, side, width // side, side * channels)
    if images.dtype == torch.uint8 and (wide := _WIDE.get(side * channels)):
        # A row of a block is moved as one number, which is five times as fast.
        moved = rows.view(wide).permute(0, 1, 3, 2, 4).contiguous().view(torch.uint8)
    else:
        moved = rows.permute(0, 1, 3, 2, 4)  # of weights, which a gradient comes back to
    return moved.reshape(count, height // side, width // side, side * side * channels).permute(0, 3, 1, 2)


_WIDE = {4: torch.int32, 8: torch.int64, 16: torch.complex128}  # of so many bytes


def _compute_dtype(device_type: str) -> torch.dtype:
    """What convolutions compute in: autocast's type inside autocast."""
    enabled = torch.is_autocast_enabled(device_type)
    return torch.get_autocast_dtype(device_type) if enabled else torch.float32


class MLP(Scaled):
    """Two tanh layers each for policy and value, which share nothing: the usual choice for vector states.

    Bytes and pictures are scaled, each element by its own bounds; vectors of floats are taken as they are. Bytes are
    divided by 255 before ``mean`` and ``scale`` apply, so that a mean of 0 and a scale of 1 suit bounds of 0..255.
    """

    def __init__(self, observation_shape: tuple[int, ...], num_actions: int, width: int = 64) -> None:
        """States of any shape are flattened."""
        inputs = prod(observation_shape)
        super().__init__(torch.zeros(inputs), torch.ones(inputs))
        self._takes_pictures = is_picture(observation_shape)

        def tower(outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(inputs, width),
                nn.Tanh(),
                nn.Linear(width, width),
                nn.Tanh(),
                nn.Linear(width, outputs),
            )

        self.policy = tower(num_actions)
        self.value = tower(1)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """[B, ...] -> logits [B, A], values [B]."""
        values = self._values(states)
        if self.scales(states.dtype):
            values = (values - self.get_buffer("mean")) * self.get_buffer("scale")
        return self.policy(values), self.value(values).squeeze(1)

    def scales(self, dtype: torch.dtype) -> bool:
        """See ``Scaled``."""
        return dtype == torch.uint8 or self._takes_pictures

    def _values(self, states: Tensor) -> Tensor:
        flat = states.flatten(1).float()
        return flat / 255 if states.dtype == torch.uint8 else flat

    @torch.no_grad()
    def normalise(self, states: Tensor) -> bool:
        """Does what ``Scaled.normalise`` does, if no element of ``states`` [N, ...] uses much of its bounds.

        Otherwise elements that use a small part of their bounds (flags beside a counter) are each scaled by their own
        mean and deviation. Elements that use more, and those that have not moved, keep the scale of their bounds.
        """
        values, mean, scale = self._values(states), self.get_buffer("mean"), self.get_buffer("scale")
        used = (values.amax(dim=0) - values.amin(dim=0)) * scale
        if not (used > _SMALL_PART).any():
            return super().normalise(states)
        little = (used > 0) & (used <= _SMALL_PART)
        values = values[:, little]
        mean[little] = values.mean(dim=0)
        deviation = (values - mean[little]).square().mean(dim=0).sqrt()
        scale[little] = 1 / torch.maximum(deviation, LEAST_DEVIATION / scale[little])
        return True

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Checkpoints from before there were a mean and a scale hold weights for values without them."""
        for name, usual in (("mean", torch.zeros), ("scale", torch.ones)):
            state_dict.setdefault(f"{prefix}{name}", usual(self.get_buffer(name).shape))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


_SMALL = (Conv(16, 8, 4), Conv(32, 4, 2))
_NATURE = (Conv(32, 8, 4), Conv(64, 4, 2), Conv(64, 3, 1))

# The paper (section 5.2) makes DNNs of growing cost from the small one by smaller first strides; so do these.
NETWORKS: dict[str, tuple[Factory, str]] = {
    "small": (partial(ConvNetwork, convs=_SMALL, dense=256), "A3C paper: conv 16x8/4, 32x4/2, dense 256"),
    "nature": (
        partial(ConvNetwork, convs=_NATURE, dense=512),
        "Mnih et al. 2015: conv 32x8/4, 64x4/2, 64x3/1, dense 512",
    ),
    "large-s3": (
        partial(ConvNetwork, convs=(Conv(16, 8, 3), Conv(32, 4, 2), Conv(64, 4, 2)), dense=256),
        "conv 16x8/3, 32x4/2, 64x4/2, dense 256",
    ),
    "large": (
        partial(ConvNetwork, convs=(Conv(16, 8, 2), Conv(32, 4, 2), Conv(64, 4, 2)), dense=256),
        "conv 16x8/2, 32x4/2, 64x4/2, dense 256",
    ),
    "large-s1": (
        partial(ConvNetwork, convs=(Conv(16, 8, 1), Conv(32, 4, 2), Conv(64, 4, 2)), dense=256),
        "conv 16x8/1, 32x4/2, 64x4/2, dense 256",
    ),
    "mlp": (MLP, "for vector states: 2 tanh layers of 64 for policy and for value"),
}


def build_network(
    name: str,
    observation_shape: tuple[int, ...],
    num_actions: int,
    initialisation: Initialisation,
    *,
    channels_last: bool | None = None,
) -> nn.Module:
    """Makes a network by name, or by ``module:callable`` with the signature (observation_shape, num_actions).

    ``channels_last`` is as in ``picture_in``, for the package's own.

    Raises:
      UsageError: there is no such network, or it does not fit the states.
    """
    factory = _factory(name)
    if channels_last is not None and name in NETWORKS and name != "mlp":
        factory = partial(factory, channels_last=channels_last)
    try:
        with contained():
            network = factory(observation_shape, num_actions)
    except UsageError:
        raise
    except USER_ERRORS as error:
        raise UsageError(f"network {name!r} cannot be made: {type(error).__name__}: {error}") from None
    if not isinstance(network, nn.Module):
        raise UsageError(f"network {name!r} is a {type(network).__name__}; a torch.nn.Module is needed")
    if not list(network.parameters()):
        raise UsageError(f"network {name!r} has no parameters to learn")
    _check_layers(network, name)
    if ":" not in name:
        network.float()  # whatever default type code of the user's has set
        _initialise(network, initialisation)
    return network


def _check_layers(network: nn.Module, name: str) -> None:
    """Refuses layers that compute one thing in training and another in play: here both use the same network at once.

    Raises:
      UsageError: there is one.
    """
    for layer in network.modules():
        keeps_statistics = isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats
        if keeps_statistics or (isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0):
            raise UsageError(
                f"network {name!r} has a {type(layer).__name__}, which trains and plays differently;"
                " LayerNorm or GroupNorm, and no dropout, would be right"
            )


def _factory(name: str) -> Factory:
    if name in NETWORKS:
        return NETWORKS[name][0]
    return find_factory(name)


def _initialise(network: nn.Module, initialisation: Initialisation) -> None:
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        if initialisation == "uniform":
            # Weights and biases alike, as in the released code.
            bound = 1 / sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound)
        else:
            nn.init.orthogonal_(layer.weight, sqrt(2))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if initialisation == "orthogonal":
        for head, gain in (("policy", 0.01), ("value", 1.0)):
            module = getattr(network, head)
            last = module[-1] if isinstance(module, nn.Sequential) else module
            assert isinstance(last, nn.Linear)
            nn.init.orthogonal_(last.weight, gain)
