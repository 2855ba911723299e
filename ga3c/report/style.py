"""How charts look: on a light page or a dark one (the page colours their words), told apart without colour too."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

HEIGHT = 300  # pixels
_POINTS = 400  # of a line: more cannot be seen
_COLOURS = ("#3b76d6", "#e07b39", "#2f9e77", "#b5508f", "#8463c9", "#a8862b", "#2a9bb3", "#7a7f87")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_LOG_TICKS = [digit * 10.0**power for power in range(-3, 5) for digit in (1, 2, 5)]
_MODES = {"A3C": 1, "A2C": 2, "GA3C": 0}  # the colour of each in every comparison
_PATTERN = {"fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.4)", "size": 6}
ACTIVITIES = {
    "environment": ("#4f9d69", "."),
    "inference": ("#3b76d6", ""),
    "training": ("#cf5f45", "x"),
    "copying": ("#e0ac3f", "/"),
    "waiting": ("rgba(128,128,128,0.28)", ""),
}


class Chart(NamedTuple):
    """One chart of the page.

    Fields:
      title: a phrase.
      words: what it means, in a sentence or two.
      figure: of plotly.
      is_wide: whether it takes the whole width.
    """

    title: str
    words: str
    figure: go.Figure
    is_wide: bool = False


class Series(NamedTuple):
    """How one series is drawn."""

    colour: str
    dash: str
    symbol: str = "circle"


def series(number: int) -> Series:
    """The style of the number-th series, from 0 on."""
    symbols = ("circle", "square", "diamond", "triangle-up", "x", "star")
    return Series(_COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)], symbols[number % len(symbols)])


def series_of_modes(labels: Sequence[str]) -> dict[str, Series]:
    """Styles of labels that begin with a mode, the same for a mode in every report as long as it comes once."""
    styles: dict[str, Series] = {}
    free = [number for number in range(len(labels) + len(_MODES)) if number not in _MODES.values()]
    for label in labels:
        wanted = _MODES.get(label.split()[0])
        taken = {style.colour for style in styles.values()}
        number = wanted if wanted is not None and series(wanted).colour not in taken else free.pop(0)
        styles[label] = series(number)
    return styles


def new_figure(x: str, y: str, *, height: int = HEIGHT) -> go.Figure:
    """An empty chart with its axes' words."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 8, "t": 34, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": "#7a828e"},
        hovermode="x unified",
        hoverlabel={"bgcolor": "#22272e", "bordercolor": "#22272e", "font": {"color": "#f2f4f7", "size": 12}},
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom", "itemwidth": 30},
        bargap=0.18,
    )
    axis = {"zeroline": False, "automargin": True, "title_standoff": 8}
    ticks = {"ticks": "outside", "tickcolor": "rgba(128,128,128,0.4)"}
    figure.update_xaxes(title_text=x, showgrid=False, rangemode="tozero", **ticks, **axis)
    figure.update_yaxes(title_text=y, gridcolor="rgba(128,128,128,0.18)", **axis)
    return figure


def thin(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over neighbours where there are more points than can be seen; [N] each."""
    if len(x) <= _POINTS:
        return x, y
    parts = zip(np.array_split(x, _POINTS), np.array_split(y, _POINTS), strict=True)
    means = np.asarray([(a.mean(), b.mean()) for a, b in parts])
    return means[:, 0], means[:, 1]


def add_line(
    figure: go.Figure, x: NDArray[np.float64], y: NDArray[np.float64], style: Series, name: str, **more: Any
) -> None:
    """A line; ``more`` goes to plotly."""
    width, opacity = more.pop("width", 1.8), more.pop("opacity", 1.0)
    line = {"color": style.colour, "dash": style.dash, "width": width}
    shown_x, shown_y = thin(x, y)
    figure.add_scatter(
        x=_digits(shown_x), y=_digits(shown_y), name=name, legendgroup=name, line=line, opacity=opacity,
        **{"mode": "lines", "hovertemplate": "%{y:.4~g}", **more},
    )  # fmt: skip


def add_band(figure: go.Figure, x: Any, low: Any, high: Any, style: Series, name: str) -> None:
    """An interval around a line of the same name."""
    for y, fill in ((low, None), (high, "tonexty")):
        figure.add_scatter(
            x=_digits(x), y=_digits(y), mode="lines", line={"width": 0, "color": style.colour}, fill=fill,
            fillcolor=faint(style.colour), legendgroup=name, showlegend=False, hoverinfo="skip",
        )  # fmt: skip


def faint(colour: str) -> str:
    """A colour of ``_COLOURS`` that the page shines through."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _digits(figures: Any) -> list[float]:
    """Six digits are enough to draw, and a page with more is larger."""
    return [float(f"{figure:.6g}") for figure in figures]


def one_of(alternatives: Mapping[str, go.Figure]) -> go.Figure:
    """One chart with a button for each of its figures; the first is shown."""
    figures = list(alternatives.values())
    merged = go.Figure(layout=figures[0].layout)
    for number, figure in enumerate(figures):
        for trace in figure.data:
            merged.add_trace(trace.update(visible=number == 0))
    if len(figures) > 1:
        buttons = []
        for number, (words, figure) in enumerate(alternatives.items()):
            visible = [place == number for place, other in enumerate(figures) for _ in other.data]
            layout = {f"{axis}.title.text": figure.layout[axis].title.text for axis in ("xaxis", "yaxis")}
            buttons.append({"label": words, "method": "update", "args": [{"visible": visible}, layout]})
        _add_buttons(merged, buttons, x=0.0, anchor="left")
    return merged


def with_log(figure: go.Figure, axis: str) -> go.Figure:
    """The figure with a button that makes an axis, ``x`` or ``y``, logarithmic, and linear again."""
    button = {
        "label": f"log {axis}", "method": "relayout",
        "args": [{f"{axis}axis.type": "log", f"{axis}axis.autorange": True}],
        "args2": [{f"{axis}axis.type": "linear", f"{axis}axis.autorange": True}],
    }  # fmt: skip
    _add_buttons(figure, [button], x=1.0, anchor="right", active=-1)
    return figure


def _add_buttons(figure: go.Figure, buttons: list[Any], *, x: float, anchor: str, active: int = 0) -> None:
    menu = {
        "type": "buttons", "direction": "right", "x": x, "xanchor": anchor, "y": 1.0, "yanchor": "bottom",
        "buttons": buttons, "active": active, "showactive": active >= 0, "pad": {"b": 8, "l": 0, "r": 0, "t": 0},
        "bgcolor": "rgba(128,128,128,0.10)", "bordercolor": "rgba(128,128,128,0.35)", "font": {"size": 11},
    }  # fmt: skip
    figure.update_layout(updatemenus=[*figure.layout.updatemenus, menu], margin_t=44)


def log_axis(figure: go.Figure, values: Sequence[float]) -> go.Figure:
    """The figure with a logarithmic x axis, with ticks as they are read, around ``values``."""
    low, high = min(values) / 1.5, max(values) * 1.5
    ticks = [tick for tick in _LOG_TICKS if low <= tick <= high]
    figure.update_xaxes(
        type="log", range=np.log10([low, high]).tolist(), tickvals=ticks, ticktext=[f"{t:g}" for t in ticks]
    )
    return figure


def share_bars(bars: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """A bar a role that adds up to 100 %, by activity.

    Args:
      bars: shares of time by activity, by the bar's words, from the top.
    """
    figure = new_figure("share of the role's time (%)", "", height=max(HEIGHT, 120 + 34 * len(bars)))
    for activity, (colour, pattern) in ACTIVITIES.items():
        figures = [100 * spent.get(activity, 0.0) for spent in bars.values()]
        figure.add_bar(
            y=list(bars), x=_digits(figures), orientation="h", name=activity,
            marker={"color": colour, "pattern": {"shape": pattern, **_PATTERN}},
            text=[f"{share:.0f}" if share >= 8 else "" for share in figures], textposition="inside", textangle=0,
            insidetextanchor="middle", hovertemplate="%{x:.1f} % " + activity + "<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="stack", hovermode="closest", bargap=0.32, legend_traceorder="normal")
    figure.update_xaxes(range=[0, 100])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure
