"""Shows a game in the terminal: two pixels a character, in 24-bit colours."""

import itertools
from types import TracebackType
from typing import Self

from PIL import Image
from rich.console import Console, Group
from rich.live import Live
from rich.style import Style
from rich.text import Text

from ga3c.play.game import Moment

_LINES = 2  # of the terminal that are not the picture's


class Screen:
    """The terminal, while games are shown in it; used as a context."""

    def __init__(self, actions: list[str], console: Console | None = None) -> None:
        """``actions`` are their names."""
        self._actions = actions
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, moment: Moment) -> None:
        """Draws it, as large as the terminal allows."""
        frame = Image.fromarray(moment.frame)
        rows = 2 * max(1, self._console.height - _LINES)
        scale = min(self._console.width / frame.width, rows / frame.height, 1.0)
        size = max(1, round(frame.width * scale)), max(2, round(frame.height * scale) // 2 * 2)
        words = Text(
            f"score {moment.score:g}   V(s) {moment.value:+.2f}   {self._actions[moment.action]}"
            f" {moment.probabilities[moment.action]:.0%}"
        )
        self._live.update(Group(half_blocks(frame.resize(size, Image.Resampling.BOX)), words), refresh=True)


def half_blocks(picture: Image.Image) -> Text:
    """An RGB picture of even height as text: each character is an upper pixel's colour on a lower one's."""
    pixels = list(picture.convert("RGB").getdata())
    width = picture.width
    text = Text(no_wrap=True, end="")
    for top in range(0, len(pixels), 2 * width):
        pairs = zip(pixels[top : top + width], pixels[top + width : top + 2 * width], strict=True)
        for (upper, lower), same in itertools.groupby(pairs):
            style = Style.parse("rgb({},{},{}) on rgb({},{},{})".format(*upper, *lower))
            text.append("▀" * sum(1 for _ in same), style)
        text.append("\n")
    return text
