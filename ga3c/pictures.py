"""How a picture lies in an observation: every part of the package asks here. Pure."""

from typing import NamedTuple

_SMALLEST_SIDE = 36  # what the three convolutions of network ``nature`` need


class Picture(NamedTuple):
    """Channels and sides of a picture, and whether observations have the channels in their last dimension."""

    channels: int
    height: int
    width: int
    channels_last: bool

    @property
    def is_large(self) -> bool:
        """Whether every convolutional network of the package can take it."""
        return min(self.height, self.width) >= _SMALLEST_SIDE


def picture_in(shape: tuple[int, ...], *, channels_last: bool | None = None) -> Picture | None:
    """Reads an observation's shape as that of a picture; None if it has neither two nor three dimensions.

    [H, W] is one grey channel. Of three dimensions the first or the last counts the channels, whichever is smaller
    (the first if they are equal), unless ``channels_last`` says which.
    """
    if len(shape) == 2:
        return Picture(1, *shape, channels_last=False)
    if len(shape) != 3:
        return None
    first, middle, last = shape
    if channels_last is None:
        channels_last = last < first
    return Picture(last, first, middle, True) if channels_last else Picture(first, middle, last, False)


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether an observation of that shape is a picture, large enough for the package's convolutional networks."""
    picture = picture_in(shape)
    return picture is not None and picture.is_large


def is_stack_of_pictures(shape: tuple[int, ...]) -> bool:
    """Whether an observation of that shape is several pictures, as frames in colour with a dimension for time."""
    return len(shape) > 3 and sum(side >= _SMALLEST_SIDE for side in shape) >= 2
