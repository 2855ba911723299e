"""What is seen of a moment: the game, and beside it what the policy makes of it."""

from collections import deque

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ga3c.play.game import Moment

_TALL = 420  # pixels: the height up to which a frame is scaled of itself
_PANEL_WIDTH, _LEAST_HEIGHT, _MARGIN = 244, 320, 18
_HISTORY = 150  # values in the line: 10 s of Atari
_ROW = 32  # pixels of an action, at most
_FLAT = 0.1  # values that differ by less are drawn as differing little

_BACKGROUND, _FAINT, _DIM, _INK = "#16181d", "#2d323c", "#9aa0aa", "#eceef1"
_BAR, _CHOSEN = "#5b7fb8", "#ffb74d"


def default_scale(frame_height: int) -> int:
    """The whole number by which a frame is scaled where nobody says another."""
    return max(1, _TALL // frame_height)


class Painter:
    """Draws one moment after the other; remembers the values for the line that it draws of them."""

    def __init__(self, actions: list[str], *, scale: int, explain: bool) -> None:
        """``actions`` are their names; ``explain`` puts score, V(s) and the actions' probabilities beside the frame."""
        self._actions = actions
        self._scale = scale
        self._explain = explain
        self._values: deque[float] = deque(maxlen=_HISTORY)

    def paint(self, moment: Moment) -> Image.Image:
        """One RGB picture; all are of one size, and its sides are even, as H.264 needs."""
        frame = Image.fromarray(moment.frame)
        frame = frame.resize((frame.width * self._scale, frame.height * self._scale), Image.Resampling.NEAREST)
        picture = Image.new("RGB", self.size(moment), _BACKGROUND)
        picture.paste(frame, (0, (picture.height - frame.height) // 2))
        if self._explain:
            self._values.append(moment.value)
            self._panel(ImageDraw.Draw(picture), frame.width, picture.height, moment)
        return picture

    def size(self, moment: Moment) -> tuple[int, int]:
        """Width and height of its picture."""
        height, width = (self._scale * pixels for pixels in moment.frame.shape[:2])
        if self._explain:
            width, height = width + _PANEL_WIDTH, max(height, _LEAST_HEIGHT)
        return width + width % 2, height + height % 2

    def _panel(self, draw: ImageDraw.ImageDraw, left: int, height: int, moment: Moment) -> None:
        left, right = left + _MARGIN, left + _PANEL_WIDTH - _MARGIN
        small, large = ImageFont.load_default(12), ImageFont.load_default(26)
        draw.text((left, 14), "score", _DIM, small)
        draw.text((left, 30), f"{moment.score:g}", _INK, large)
        middle = (left + right) // 2
        draw.text((middle, 14), "V(s)", _DIM, small)
        draw.text((middle, 30), f"{moment.value:+.2f}", _INK, large)
        bottom = 76 + height // 5
        self._line(draw, (left, 76, right, bottom))
        self._bars(draw, (left, bottom + 14, right, height - 12), moment)

    def _line(self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
        """The newest values, the last at the right."""
        left, top, right, bottom = box
        draw.line((left, bottom, right, bottom), _FAINT)
        values = np.array(self._values)
        middle = (values.max() + values.min()) / 2
        half = max(values.max() - values.min(), _FLAT) / 2
        ys = (top + bottom) / 2 - (values - middle) / half * (bottom - top - 6) / 2
        xs = right - (right - left) * np.arange(len(values) - 1, -1, -1) / (_HISTORY - 1)
        points = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
        if len(points) > 1:
            draw.line(points, _BAR, 2, joint="curve")
        x, y = points[-1]
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), _CHOSEN)

    def _bars(self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], moment: Moment) -> None:
        """A row for each action: name, bar, percent; the chosen one in another colour."""
        left, top, right, bottom = box
        row = min(_ROW, (bottom - top) / len(self._actions))
        font = ImageFont.load_default(max(6, min(12, row - 3)))
        begin = left + max(font.getlength(name) for name in self._actions) + 8
        end = right - font.getlength("100%") - 6
        for action, (name, probability) in enumerate(zip(self._actions, moment.probabilities, strict=True)):
            y, chosen = top + (action + 0.5) * row, action == moment.action
            draw.text((left, y), name, _CHOSEN if chosen else _DIM, font, anchor="lm")
            draw.rectangle((begin, y - row / 4, end, y + row / 4), _FAINT)
            filled = begin + (end - begin) * float(probability)
            if filled - begin >= 1:
                draw.rectangle((begin, y - row / 4, filled, y + row / 4), _CHOSEN if chosen else _BAR)
            draw.text((right, y), f"{probability:.0%}", _INK if chosen else _DIM, font, anchor="rm")
