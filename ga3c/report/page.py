"""The page: sections of figures, charts, tables and clips, written into one HTML file by ``report.html.j2``."""

import base64
import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
from plotly.offline import get_plotlyjs

import ga3c
from ga3c.errors import UsageError
from ga3c.report.style import Chart

MOST_CLIP_BYTES = 12_000_000  # in one page, before they become text
_TYPES = {".mp4": "video/mp4", ".gif": "image/gif"}


class Tile(NamedTuple):
    """One figure in large type, what it is of, and what it is."""

    figure: str
    of: str
    words: str


class Table(NamedTuple):
    """A table, folded away or not; its first ``texts`` columns are words, the others figures."""

    title: str
    words: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    texts: int = 1
    is_folded: bool = False


class Clip(NamedTuple):
    """A moving picture: its words, type and text in base 64."""

    words: str
    type: str
    data: str


@dataclass(frozen=True)
class Section:
    """One part of the page; what is empty is left out.

    Attributes:
      title, words: above it.
      facts: sentences.
      notes: sentences that warn.
      tiles, charts, clips, tables: in the order of the page.
    """

    title: str
    words: str = ""
    facts: Sequence[str] = ()
    notes: Sequence[str] = ()
    tiles: Sequence[Tile] = ()
    charts: Sequence[Chart] = ()
    clips: Sequence[Clip] = ()
    tables: Sequence[Table] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.facts or self.notes or self.tiles or self.charts or self.tables or self.clips)


def read_clips(paths: Sequence[tuple[str, Path]]) -> tuple[list[Clip], list[str]]:
    """As many as fit into the page, and a note on the others.

    Args:
      paths: words and file of each, the most wanted first.
    """
    clips, notes, left = [], [], MOST_CLIP_BYTES
    for words, path in paths:
        try:
            content = path.read_bytes() if path.stat().st_size <= left else None
        except OSError as error:
            notes.append(f"{words} cannot be read: {error.strerror}")
            continue
        if content is None:
            notes.append(f"{words} is left out: it would make the page too large")
            continue
        left -= len(content)
        clips.append(Clip(words, _TYPES[path.suffix], base64.b64encode(content).decode()))
    return clips, notes


def write_page(path: Path, title: str, subtitle: str, sections: Sequence[Section]) -> None:
    """Writes the file, whole or not at all.

    Raises:
      UsageError: it cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ga3c.report", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        sections=[section for section in sections if not section.is_empty],
        plotlyjs=get_plotlyjs(),
        chart_html=_chart_html,
        date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        version=ga3c.__version__,
    )
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UsageError(f"--out: {path} cannot be written to: {error.strerror}") from None


def _chart_html(chart: Chart, place: str) -> str:
    """A division that draws itself; ``place`` is its id."""
    html: str = chart.figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=place,
        config={"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["select2d", "lasso2d"]},
    )  # fmt: skip
    return html


def check_writable(path: Path) -> None:
    """Finds out before the runs are read.

    Raises:
      UsageError: a file cannot be written there.
    """
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"--out: {path} cannot be written to; a file in a folder that exists would be right")
