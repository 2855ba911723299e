"""Films: pictures in, an MP4 or GIF file out, which has its name only when it is whole."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ga3c.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    Add = Callable[[Image], None]

EXTRA = {"av": "av", "PIL": "pillow"}  # module: its package
_CS = 100  # a GIF counts in hundredths of a second
_GIF_MOST_FPS = 50  # browsers show a picture of one hundredth for ten
_BT601, _LIMITED = 6, 1  # how the colours are coded, by ITU-T H.273: players guess where a film does not say


def check_extra(option: str) -> None:
    """Looks for what draws and writes films, before anything is played.

    Raises:
      UsageError: it is not installed; ``option`` asked for it.
    """
    missing = [package for module, package in EXTRA.items() if find_spec(module) is None]
    if missing:
        raise UsageError(f"{option} needs {' and '.join(missing)}; pip install 'ga3c[video]' would be right")


def check_film(path: Path, fps: float = 1.0) -> None:
    """Refuses a name under which no film can be written.

    Raises:
      UsageError: it is of another format, is there already, or its folder is not there or not to be written to; or the
        format is too slow.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"--out: got {path}; a name that ends in .mp4 or .gif would be right")
    if path.suffix.lower() == ".gif" and fps > _GIF_MOST_FPS:
        raise UsageError(f"--fps: got {fps:g}, but a GIF has at most {_GIF_MOST_FPS}; .mp4 would be right")
    if path.exists():
        raise UsageError(f"--out: {path} is there already; another name would be right")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"--out: {path} cannot be written to; a file in a folder that exists would be right")


@contextmanager
def filming(path: Path, fps: float) -> Iterator["Add"]:
    """Gives what adds a picture to the film; all are of one size, and its sides are even.

    The file is there once the block has ended, and only if it ended well.

    Raises:
      UsageError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with _FORMATS[path.suffix.lower()](partial, fps) as add:
            yield add
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"--out: {path} cannot be written to: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _mp4(path: Path, fps: float) -> Iterator["Add"]:
    """H.264 with halved colours, which every browser and player shows."""
    import av

    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast"}
        stream.codec_context.colorspace, stream.codec_context.color_range = _BT601, _LIMITED

        def add(picture: "Image") -> None:
            if not stream.codec_context.is_open:
                stream.width, stream.height = picture.size
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture))))

        yield add
        container.mux(stream.encode())


@contextmanager
def _gif(path: Path, fps: float) -> Iterator["Add"]:
    """In 256 colours a picture, more than the console has. It is held in memory, a byte a pixel, until it is whole."""
    from PIL.Image import Dither

    pictures: list[Image] = []
    yield lambda picture: pictures.append(picture.quantize(dither=Dither.NONE))
    # Each picture as long as keeps the whole film in time.
    ends = [round(_CS * n / fps) for n in range(len(pictures) + 1)]
    durations = [10 * (end - begin) for begin, end in itertools.pairwise(ends)]
    pictures[0].save(path, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=False)


_FORMATS: dict[str, Callable[[Path, float], AbstractContextManager["Add"]]] = {".mp4": _mp4, ".gif": _gif}
