"""The pictures of a comparison, from the rows of its record. Each function draws one, or says None without its data.

1 throughput, 2 speed-up against MFLOP, 3 the grid, 4 queues, batches and lag, 5 scores, 6 where the time goes.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ga3c.compare.cells import Row
from ga3c.compare.chart_style import Style, finish, new_figure, plain_numbers, save, style_of, styled, tidy
from ga3c.compare.charts_over_time import queues, scores
from ga3c.compare.figures import (
    Published,
    SpeedUp,
    label,
    labels,
    measured,
    networks,
    published,
    rate,
    role_shares,
    speed_ups,
)

_TICKS = [digit * 10.0**power for power in range(-2, 4) for digit in (1, 2, 5)]  # of a logarithmic axis
_RATES = {"pps": "predictions / s (PPS)", "training_samples_per_s": "training samples / s"}
_DOING = {
    "environment": ("#8cb369", "..."),
    "inference": ("#1d4e89", ""),
    "training": ("#c8553d", "xxx"),
    "copying": ("#f4a259", "///"),
    "waiting": ("#eeeeee", ""),
}


def draw_all(rows: Sequence[Row], folder: Path, *, with_published: bool) -> list[Path]:
    """Draws every picture that the rows have data for, as PNG and SVG, and returns the paths."""
    drawings: dict[str, Callable[[], Figure | None]] = {
        "1_throughput": lambda: throughput(rows),
        "2_speed_up": lambda: speed_up(rows, published() if with_published else []),
        "3_grid": lambda: grid(rows),
    }
    for network in networks(measured(rows)):
        name = "4_queues_" + re.sub(r"[^\w-]+", "-", network)
        drawings[name] = lambda network=network: queues(rows, network)  # type: ignore[misc]
    drawings["5_scores"] = lambda: scores(rows)
    drawings["6_time"] = lambda: time_shares(rows)
    paths = []
    with styled():
        for name, draw in drawings.items():
            figure = draw()
            if figure is not None:
                paths += save(figure, folder, name)
    return paths


def throughput(rows: Sequence[Row]) -> Figure | None:
    """Chart 1: both rates by network and mode, each run a dot, with the speed-up of GA3C over A3C."""
    found = [row for row in measured(rows) if rate(row, "pps") is not None]
    if not found:
        return None
    names, series = networks(found), labels(found)
    width = max(5.6, 0.9 + len(names) * (0.9 + 0.42 * len(series)))
    figure = new_figure(width, 6.2)
    axes = figure.subplots(len(_RATES), len(names), squeeze=False)
    for axis, (network, mflop) in zip(axes[0], names.items(), strict=True):
        axis.set_title(f"{network}\n{mflop:.3g} MFLOP / state")
    for line, (name, unit) in zip(axes, _RATES.items(), strict=True):
        for axis, network in zip(line, names, strict=True):
            own = [row for row in found if row["cell"]["network"] == network]
            top = _bars(axis, own, rows, series, name)
            _brackets(axis, speed_ups(own, name), series, top)
        line[0].set_ylabel(unit)
    handles = [_patch(style_of(name, rows), name) for name in series]
    pairs = speed_ups(found, "pps")
    notes = ["bars: medians of the runs, which are the dots"]
    if pairs:
        notes.append(f"over each pair: the median of the ratios within repeats [{pairs[0].interval.kind}]")
    title = "Throughput, and the speed-up GA3C / A3C" if pairs else "Throughput"
    finish(figure, title, rows, handles, columns=_columns(series, width), notes=["; ".join(notes)])
    return figure


def _columns(names: Sequence[str], width: float) -> int:
    """Of a legend that is no wider than the figure (inches)."""
    return max(1, min(len(names), int(width / (0.5 + 0.075 * max(map(len, names))))))


def _bars(axis: Axes, own: Sequence[Row], rows: Sequence[Row], series: Sequence[str], name: str) -> float:
    """Median of the runs as a bar, the runs as dots; returns the highest."""
    top = 0.0
    for place, title in enumerate(series):
        figures = [figure for row in own if label(row) == title and (figure := rate(row, name)) is not None]
        if not figures:
            continue
        style, middle = style_of(title, rows), float(np.median(figures))
        axis.bar(place, middle, 0.8, color=style.colour, hatch=style.hatch, edgecolor="black", linewidth=0.6)
        spread = np.linspace(-0.18, 0.18, len(figures)) if len(figures) > 1 else [0.0]
        axis.plot(place + np.asarray(spread), figures, "o", color="white", markeredgecolor="black", markersize=3.5)
        axis.annotate(
            f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}", (place, max(figures)), xytext=(0, 4),
            textcoords="offset points", ha="center", fontsize=7.5,
        )  # fmt: skip
        top = max(top, *figures)
    axis.set_xticks([])
    axis.set_xlim(-0.6, len(series) - 0.4)
    axis.set_ylim(0, top * 1.15)
    plain_numbers(axis.yaxis)
    tidy(axis)
    return top


def _brackets(axis: Axes, found: Sequence[SpeedUp], series: Sequence[str], top: float) -> None:
    """The speed-up over each pair of bars, with its interval."""
    for level, s in enumerate(found):
        height = top * (1.2 + 0.2 * level)
        left, right = sorted((series.index(s.a3c), series.index(s.ga3c)))
        axis.plot([left, left, right, right], [height - top * 0.03, height, height, height - top * 0.03], "k-", lw=0.8)
        bounds = f" [{s.interval.low:.2f}, {s.interval.high:.2f}]" if len(s.ratios) > 1 else ""
        axis.text((left + right) / 2, height + top * 0.01, f"x {s.interval.middle:.2f}{bounds}", ha="center",
                  va="bottom", fontsize=7.5)  # fmt: skip
    if found:
        axis.set_ylim(0, top * (1.32 + 0.2 * (len(found) - 1)))


def _patch(style: Style, name: str) -> Patch:
    return Patch(facecolor=style.colour, hatch=style.hatch, edgecolor="black", linewidth=0.6, label=name)


def speed_up(rows: Sequence[Row], papers: Sequence[Published]) -> Figure | None:
    """Chart 2: how many times as many predictions a second, against what the network costs."""
    found = speed_ups(rows, "pps")
    if not found:
        return None
    figure = new_figure(7.2, 5.0 + 0.35 * bool(papers))
    axis = figure.subplots()
    for pair in dict.fromkeys(s.pair for s in found):
        own = [s for s in found if s.pair == pair]
        style = style_of(own[0].a3c, rows)
        middles = np.asarray([s.interval.middle for s in own])
        bounds = np.asarray([(s.interval.low, s.interval.high) for s in own]).T
        errors = np.maximum(0.0, np.stack((middles - bounds[0], bounds[1] - middles)))
        axis.errorbar([s.mflop for s in own], middles, errors, color=style.colour, marker=style.marker, linestyle="-",
                      markeredgecolor="black", capsize=3, ecolor="black", elinewidth=0.8, label=pair)  # fmt: skip
    for s in {s.network: s for s in found}.values():
        axis.annotate(s.network, (s.mflop, 1), xycoords=("data", "axes fraction"), xytext=(0, -9),
                      textcoords="offset points", ha="center", fontsize=7.5, color="0.35")  # fmt: skip
    _published_lines(axis, papers)
    axis.axhline(1.0, color="0.4", linewidth=0.8, linestyle=":")
    _speed_up_axes(axis, found, papers)
    kind = found[0].interval.kind
    handles = axis.get_legend_handles_labels()[0]
    notes = [f"dashed: {source}; at the cost of this package's network of that name" for source in _sources(papers)]
    title = "Speed-up of GA3C over A3C by the network's cost"
    finish(figure, title, rows, handles, columns=_columns([str(h.get_label()) for h in handles], 7.2), notes=notes)
    axis.set_ylabel(f"speed-up in PPS (times), {kind}")
    return figure


def _published_lines(axis: Axes, papers: Sequence[Published]) -> None:
    """The published pairs, dashed; the cost is that of this package's network of the same name."""
    costs = published_costs({p.network for p in papers})
    for grey, hardware in zip(("0.15", "0.4", "0.6"), dict.fromkeys(p.hardware for p in papers), strict=False):
        own = [p for p in papers if p.hardware == hardware]
        points = sorted((costs[p.network], p.ga3c_pps / p.a3c_pps) for p in own)
        axis.plot(*zip(*points, strict=True), color=grey, linestyle="--", marker="x", linewidth=1.0,
                  label=f"published: {hardware}")  # fmt: skip


def _sources(papers: Sequence[Published]) -> list[str]:
    return list(dict.fromkeys(paper.source for paper in papers))


def published_costs(names: set[str]) -> dict[str, float]:
    """MFLOP a state by network, of Atari states and 6 actions, as Pong has."""
    import torch

    from ga3c.flops import cost
    from ga3c.networks import build_network

    shape = (4, 84, 84)
    return {name: cost(build_network(name, shape, 6, "uniform"), torch.zeros(1, *shape), 6)[1] for name in names}


def _speed_up_axes(axis: Axes, found: Sequence[SpeedUp], papers: Sequence[Published]) -> None:
    figures = [ratio for s in found for ratio in s.ratios] + [p.ga3c_pps / p.a3c_pps for p in papers]
    axis.set_xscale("log")
    axis.set_xlabel("network: MFLOP / state (forward pass)")
    if max(figures) > 8 * min(figures):
        axis.set_yscale("log")
        axis.set_ylim(min(0.9, min(figures) * 0.8), max(figures) * 1.6)
        axis.set_yticks([tick for tick in _TICKS if min(figures) / 2 < tick < 1.3 * max(figures)])
    else:
        axis.set_ylim(0, max(1.2, max(figures) * 1.2))
    plain_numbers(axis.xaxis)
    plain_numbers(axis.yaxis)
    costs = sorted({s.mflop for s in found} | set(published_costs({p.network for p in papers}).values()))
    first, last = costs[0] / 1.6, costs[-1] * 1.6
    axis.set_xlim(first, last)
    axis.set_xticks([tick for tick in _TICKS if first <= tick <= last])
    tidy(axis, grid="both")


def grid(rows: Sequence[Row]) -> Figure | None:
    """Chart 3: TPS and PPS over N_A, a line for each N_P and N_T, a line of axes for each network."""
    found = [row for row in measured(rows, "grid") if rate(row, "pps") is not None]
    if not found:
        return None
    names = list(networks(found))
    figure = new_figure(8.4, 1.4 + 2.6 * len(names))
    axes = figure.subplots(len(names), 2, squeeze=False)
    for line, network in zip(axes, names, strict=True):
        own = [row for row in found if row["cell"]["network"] == network]
        for axis, name in zip(line, ("tps", "pps"), strict=True):
            _grid_lines(axis, own, name)
            axis.set_ylabel({"tps": "updates / s (TPS)"}.get(name, _RATES["pps"]))
            axis.set_title(network)
    for axis in axes[-1]:
        axis.set_xlabel("actors N_A (processes)")
    handles, titles = axes[0][0].get_legend_handles_labels()
    title = f"Mode ga3c over its counts, {' and '.join(labels(found))}"
    finish(figure, title, rows, handles, columns=_columns(titles, 8.4))
    return figure


def _grid_lines(axis: Axes, rows: Sequence[Row], name: str) -> None:
    """A line a pair of counts and record: the median of the repeats, with least and most as a bar."""
    points: dict[tuple[str, int, int], dict[int, list[float]]] = {}
    for row in rows:
        counts = row["cell"]["settings"]
        place = (row.get("record", ""), counts["predictors"], counts["trainers"])
        points.setdefault(place, {}).setdefault(counts["actors"], []).append(rate(row, name) or 0.0)
    for number, ((record, predictors, trainers), by_actors) in enumerate(sorted(points.items())):
        x = sorted(by_actors)
        middle = np.asarray([np.median(by_actors[n]) for n in x])
        errors = [middle - [min(by_actors[n]) for n in x], np.asarray([max(by_actors[n]) for n in x]) - middle]
        title = f"N_P {predictors}, N_T {trainers}" + (f", {record}" if record else "")
        axis.errorbar(x, middle, errors, marker="osD^vPX*"[number % 8], color=_GRID_COLOURS[number % 4], capsize=2,
                      linestyle=("-", "--", "-.", ":")[number % 4], markersize=4.5, label=title)  # fmt: skip
    ticks = sorted({row["cell"]["settings"]["actors"] for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks)
    plain_numbers(axis.xaxis)
    plain_numbers(axis.yaxis)
    axis.set_ylim(bottom=0)
    tidy(axis)


_GRID_COLOURS = ("#1d4e89", "#c8553d", "#8cb369", "#f4a259")


def time_shares(rows: Sequence[Row]) -> Figure | None:
    """Chart 6: what each role spent its time on, a bar a mode and role, axes for each network."""
    found = measured(rows)
    shares = {
        (network, name, role): spent
        for network in networks(found)
        for name in labels(found)
        for role, spent in role_shares(
            [row for row in found if label(row) == name and row["cell"]["network"] == network]
        ).items()
    }
    if not shares:
        return None
    bars = list(dict.fromkeys((name, role) for _, name, role in shares))
    names = list(dict.fromkeys(network for network, _, _ in shares))
    figure = new_figure(3.0 + 2.3 * max(2, len(names)), 1.7 + 0.36 * len(bars))
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axis, network in zip(axes, names, strict=True):
        for place, (name, role) in enumerate(bars):
            _share_bar(axis, place, shares.get((network, name, role), {}))
        axis.set_title(network)
        axis.set_xlabel("share of the role's time (%)")
        axis.set_xlim(0, 100)
        axis.set_xticks(range(0, 101, 25))
    axes[0].set_yticks(range(len(bars)), [f"{name}: {role}" for name, role in bars])
    axes[0].invert_yaxis()
    handles = [Patch(facecolor=c, hatch=h, edgecolor="black", linewidth=0.6, label=w) for w, (c, h) in _DOING.items()]
    finish(figure, "Where the time goes", rows, handles, columns=5)
    return figure


def _share_bar(axis: Axes, place: int, spent: dict[str, float]) -> None:
    left = 0.0
    for what, (colour, hatch) in _DOING.items():
        share = 100 * spent.get(what, 0.0)
        axis.barh(place, share, 0.72, left, color=colour, hatch=hatch, edgecolor="black", linewidth=0.6)
        if share >= 12:
            ink = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            axis.text(left + share / 2, place, f"{share:.0f}", ha="center", va="center", fontsize=7.5, bbox=ink)
        left += share
