"""How every chart of a comparison looks: readable in grey, with units, and with its source under it."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ga3c.compare.cells import Row
from ga3c.compare.figures import is_simulated, labels
from ga3c.compare.report import caption

_RC: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "ga3c",  # the same record gives the same file
    "svg.fonttype": "none",
}
_CAPTION_SIZE = 7


class Style(NamedTuple):
    """One series, told apart by colour, and without colour by the rest."""

    colour: str
    hatch: str
    marker: str
    line: Any


# How labels begin, each with a style; then the same for a second record. Each set goes from light to dark.
_KINDS = ("A3C (cpu)", "A3C (", "A2C (", "GA3C (")
_STYLES = (
    Style("#f4a259", "///", "o", (0, (4, 1.5))),
    Style("#c8553d", "xxx", "s", (0, (4, 1.5, 1, 1.5))),
    Style("#8cb369", "...", "^", (0, (1, 1.2))),
    Style("#1d4e89", "", "D", "-"),
    Style("#fbdcb9", "\\\\\\", "v", (0, (6, 2))),
    Style("#e3aba0", "+++", "P", (0, (6, 1, 1, 1, 1, 1))),
    Style("#cfe2bf", "ooo", "X", (0, (1, 2.5))),
    Style("#86a9d2", "---", "*", (0, (8, 1))),
)


def style_of(label: str, rows: Sequence[Row]) -> Style:
    """The style of a series, the same in every chart of the record."""
    sets: dict[int, int] = {}
    for name in labels(rows):
        kind = next(number for number, start in enumerate(_KINDS) if name.startswith(start))
        place = (kind + len(_KINDS) * sets.get(kind, 0)) % len(_STYLES)
        sets[kind] = sets.get(kind, 0) + 1
        if name == label:
            return _STYLES[place]
    raise KeyError(label)


@contextmanager
def styled() -> Iterator[None]:
    """Draws in this style, and leaves the settings of whoever calls alone."""
    with mpl.rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Inches. Not of pyplot, which would keep it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def finish(
    figure: Figure,
    title: str,
    rows: Sequence[Row],
    handles: Sequence[Any],
    *,
    columns: int = 4,
    notes: Sequence[str] = (),
) -> None:
    """Adds the title, the legend under it, and the caption with hardware, commit and notes at the foot."""
    if any(map(is_simulated, rows)):
        title += " (simulated device)"
    figure.suptitle(title, fontsize=10.5, fontweight="bold")
    width = int(figure.get_figwidth() * 16)
    lines = [part for line in [*caption(rows), *notes] for part in textwrap.wrap(line, width)]
    figure.supxlabel("\n".join(lines), fontsize=_CAPTION_SIZE, color="0.35")
    if handles:
        # Under a title of its own height: both would be at the upper edge.
        figure.legend(handles=list(handles), loc="outside upper center", ncols=columns, title=" ", title_fontsize=10.5)


def tidy(axes: Axes, *, grid: str = "y") -> None:
    """A faint grid, and thousands with commas."""
    axes.grid(visible=True, axis=grid, alpha=0.25, linewidth=0.7)  # type: ignore[arg-type]


def plain_numbers(axis: Any) -> None:
    """Figures as they are read, instead of powers of ten, and none at the minor ticks of a logarithmic axis."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes PNG and SVG, and returns their paths."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    figure.savefig(paths[0], dpi=130)
    figure.savefig(paths[1], metadata={"Date": None})
    return paths
