"""Shows a game in the terminal, where there is no window: two pixels a character, in 24-bit colours."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image
from rich.console import Console, Group
from rich.live import Live
from rich.style import Style
from rich.text import Text

from ga3c.display import make_console
from ga3c.errors import UsageError
from ga3c.play.game import Moment

_LINES = 2  # of the terminal that are not the picture's


@contextmanager
def terminal(actions: list[str], console: Console | None = None) -> Iterator[Callable[[Moment, Image.Image], bool]]:
    """Gives what shows a moment, as large as the terminal allows, until the end; ``actions`` are the actions' names.

    Raises:
      UsageError: the terminal has no half blocks.
    """
    console = console or make_console()
    if not console.encoding.startswith("utf"):
        raise UsageError(f"--live: got a terminal with encoding {console.encoding}; expected UTF-8, or --out FILE")
    with Live(console=console, auto_refresh=False) as live:

        def show(moment: Moment, _: Image.Image) -> bool:
            frame = Image.fromarray(moment.frame)
            rows = 2 * max(1, console.height - _LINES)
            scale = min(console.width / frame.width, rows / frame.height, 1.0)
            size = max(1, round(frame.width * scale)), max(2, round(frame.height * scale) // 2 * 2)
            words = Text(
                f"score {moment.score:g}   V(s) {moment.value:+.2f}   {actions[moment.action]}"
                f" {moment.probabilities[moment.action]:.0%}",
                no_wrap=True,
                overflow="ellipsis",
            )
            live.update(Group(half_blocks(frame.resize(size, Image.Resampling.BOX)), words), refresh=True)
            return True

        yield show


def half_blocks(picture: Image.Image) -> Text:
    """An RGB picture of even height as text: each character is an upper pixel's colour on a lower one's."""
    pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()
    width = picture.width
    text = Text(no_wrap=True, end="")
    for top in range(0, len(pixels), 2 * width):
        pairs = zip(pixels[top : top + width], pixels[top + width : top + 2 * width], strict=True)
        for (upper, lower), same in itertools.groupby(pairs):
            style = Style.parse("rgb({},{},{}) on rgb({},{},{})".format(*upper, *lower))
            text.append("▀" * sum(1 for _ in same), style)
        text.append("\n")
    return text
