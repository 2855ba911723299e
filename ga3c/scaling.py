"""How observations are scaled in front of a network's first layer: by the bounds of their space, or as play shows them.

A network that learns from numbers far from 1 learns slowly or not at all, and nothing says so. Bounds bring them to
0..1. Where a space promises more than a game shows, and for pictures, statistics of random play do better. Both are
folded into a mean and a scale, which the network keeps with its weights and a checkpoint holds.
"""

import torch
from torch import Tensor, nn

# The floor of a deviation, as a fraction of the span of the bounds: one step of a byte. Without a floor, whatever is
# rare in random play would be magnified enormously when it does appear.
LEAST_DEVIATION = 1 / 255
# A smaller deviation means that nothing has moved, as behind a title or a loading screen. (A single byte among a
# thousand that is sometimes 1 is enough to exceed it.)
_NO_DEVIATION = LEAST_DEVIATION / 100


class Scaled(nn.Module):
    """A network whose first layer is given (values - mean) * scale.

    Buffers, both float32: ``mean`` has the shape of an observation as the network reads it (see ``_values``); ``scale``
    is a scalar, or has the same shape.
    """

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def scales(self, dtype: torch.dtype) -> bool:
        """Whether observations of that type are scaled."""
        del dtype
        return True

    def _values(self, states: Tensor) -> Tensor:
        """Observations [B, ...] as floats, in the order in which the network reads them."""
        raise NotImplementedError

    def scale_by(self, low: Tensor, high: Tensor) -> None:
        """From now on brings observations between ``low`` and ``high``, [...] each and of their type, to 0..1."""
        mean, scale = self.get_buffer("mean"), self.get_buffer("scale")
        lowest, highest = self._values(low.unsqueeze(0))[0], self._values(high.unsqueeze(0))[0]
        span = highest - lowest
        if scale.dim() == 0:
            span = span.max()
        with torch.no_grad():
            mean.copy_(lowest)
            scale.copy_(1 / torch.where(span > 0, span, 1.0))  # what never changes has no span

    @torch.no_grad()
    def normalise(self, states: Tensor) -> bool:
        """From now on subtracts the mean of ``states`` [N, ...], and divides by the deviation from it.

        A game's background is the same in every state: left in, it drowns what moves.

        Bounds must have been set before (``scale_by``, or 0..255 as at construction): the floor is relative to them.

        Returns:
          False if the states hardly differ from each other; the mean and the scale are then left as they were.
        """
        mean, scale = self.get_buffer("mean"), self.get_buffer("scale")
        widest = 1 / scale.min()  # span of the bounds, until now
        relative = scale.min() / scale  # each element's, to the widest
        values = self._values(states)
        centre = values.mean(dim=0)
        deviation = (values - centre).div_(relative).square_().mean().sqrt()
        if not deviation > _NO_DEVIATION * widest:
            return False
        mean.copy_(centre)
        scale.copy_(1 / (relative * deviation.clamp(min=LEAST_DEVIATION * widest)))
        return True
