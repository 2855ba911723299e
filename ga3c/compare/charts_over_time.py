"""Charts 4 and 5 of a comparison: what changes within a run."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ga3c.compare.cells import Row
from ga3c.compare.chart_style import Style, finish, new_figure, style_of, tidy
from ga3c.compare.figures import curve, histogram, label, labels, measured, networks, with_scores
from ga3c.statistics import interval_words, mean_curve
from ga3c.windows import bin_edges, shares

# Figure of a window, its histogram, and what it is with its unit.
_QUEUES = (
    ("prediction_queue_depth", "prediction_queue_histogram", "prediction queue (requests)"),
    ("training_queue_depth", "training_queue_histogram", "training queue (samples)"),
    ("prediction_batch_mean", "prediction_batch_histogram", "prediction batch (states)"),
    ("policy_lag_mean", "policy_lag_histogram", "policy lag (updates)"),
)


def queues(rows: Sequence[Row], network: str) -> Figure | None:
    """Chart 4: queue depths, prediction batches and policy lag of one network, over time and as distributions."""
    found = [row for row in measured(rows) if row["cell"]["network"] == network]
    if not any(window.get("policy_lag_mean") is not None for row in found for window in row["windows"]):
        return None
    figure = new_figure(12.5, 5.6)
    axes = figure.subplots(2, len(_QUEUES))
    for (mean, counts, words), over_time, distribution in zip(_QUEUES, axes[0], axes[1], strict=True):
        _over_time(over_time, found, rows, mean)
        over_time.set_title(words)
        over_time.set_xlabel("time (s)")
        _distributions(distribution, found, rows, counts)
        distribution.set_xlabel(words)
    axes[0][0].set_ylabel("mean of a window")
    axes[1][0].set_ylabel("share (%)")
    handles = [_line(style_of(name, rows), name) for name in labels(found)]
    finish(figure, f"Queues, batches and policy lag, network {network}", rows, handles)
    return figure


def _line(style: Style, name: str) -> Line2D:
    return Line2D([], [], color=style.colour, linestyle=style.line, marker=style.marker, markersize=4, label=name)


def _over_time(axis: Axes, found: Sequence[Row], rows: Sequence[Row], name: str) -> None:
    """A thin line a run; the windows that do not count are behind a grey ground."""
    begins = [window["began_s"] for row in found for window in row["windows"] if window["warm"]]
    for row in found:
        # The last window ends with the run, after a moment: its means are of nothing.
        points = [w for w in row["windows"][:-1] if w.get(name) is not None]
        style = style_of(label(row), rows)
        axis.plot([w["time_s"] for w in points], [w[name] for w in points], color=style.colour, linestyle=style.line,
                  marker=style.marker, markersize=3, linewidth=1.1)  # fmt: skip
    if begins:
        axis.axvspan(0, min(begins), color="0.93", zorder=0)
    _from_zero(axis, any(np.size(line.get_ydata()) for line in axis.lines))
    axis.set_xlim(left=0)


def _distributions(axis: Axes, found: Sequence[Row], rows: Sequence[Row], name: str) -> None:
    """Outlines, of all repeats together, in common bins."""
    series = {title: histogram([row for row in found if label(row) == title], name) for title in labels(found)}
    series = {title: counts for title, counts in series.items() if counts}
    if series:
        edges = bin_edges([value for counts in series.values() for value in counts])
        for title, counts in series.items():
            style = style_of(title, rows)
            axis.stairs(shares(counts, edges), edges, color=style.colour, linestyle=style.line, linewidth=1.4)
            axis.stairs(shares(counts, edges), edges, color=style.colour, fill=True, alpha=0.12)
    _from_zero(axis, bool(series))


def _from_zero(axis: Axes, something: bool) -> None:
    """Ends the axes of an amount, whether there is something in them or not."""
    if not something:
        axis.text(0.5, 0.5, "not recorded", transform=axis.transAxes, ha="center", va="center", color="0.5")
        axis.set_xticks([])
        axis.set_yticks([])
    axis.set_ylim(0, 1.06 * axis.get_ylim()[1])
    tidy(axis)


def scores(rows: Sequence[Row]) -> Figure | None:
    """Chart 5: the mean return of the last 100 games over minutes and over frames, axes for each network."""
    found = with_scores(rows)
    if not found:
        return None
    names = list(networks(found))
    figure = new_figure(9.0, 1.6 + 2.6 * len(names))
    axes = figure.subplots(len(names), 2, squeeze=False, sharey="row")
    for line, network in zip(axes, names, strict=True):
        own = [row for row in found if row["cell"]["network"] == network]
        for axis, (name, divisor) in zip(line, (("time_s", 60.0), ("frames", 1e6)), strict=True):
            for title in labels(own):
                _mean_curve(axis, [row for row in own if label(row) == title], name, divisor, style_of(title, rows))
            _goal(axis, own)
            axis.set_xlim(left=0)
            axis.set_title(network)
            tidy(axis)
        line[0].set_ylabel("return\n(mean of the last 100 games)")
    axes[-1][0].set_xlabel("training time (minutes)")
    axes[-1][1].set_xlabel("frames (millions)")
    handles = [_line(style_of(name, rows), name) for name in labels(found)]
    finish(figure, f"Scores: {interval_words(_most_seeds(found))}", rows, handles)
    return figure


def _most_seeds(rows: Sequence[Row]) -> int:
    return max(Counter((label(row), row["cell"]["network"]) for row in rows).values())


def _mean_curve(axis: Axes, seeds: Sequence[Row], name: str, divisor: float, style: Style) -> None:
    """Each seed thin to its end; their mean and its interval as far as all seeds go."""
    curves = [curve(row, name) for row in seeds]
    for x, y in curves:
        axis.plot(x / divisor, y, color=style.colour, linestyle=style.line, linewidth=0.6, alpha=0.7)
    found = mean_curve(curves)
    if found is None:
        return
    axis.plot(found.x / divisor, found.mean, color=style.colour, linestyle=style.line, linewidth=2.0,
              marker=style.marker, markevery=len(found.x) // 8, markersize=4.5)  # fmt: skip
    if found.low is not None and found.high is not None:
        axis.fill_between(found.x / divisor, found.low, found.high, color=style.colour, alpha=0.18, linewidth=0)


def _goal(axis: Axes, rows: Sequence[Row]) -> None:
    score = rows[0]["comparison"]["until_score"]
    if score is not None:
        axis.axhline(score, color="0.4", linestyle=":", linewidth=1.0)
