"""The charts of runs: curves, rates, lag, queues, and where the time goes. Each is None without its data."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ga3c.agents import Group
from ga3c.report.runs import Run
from ga3c.report.style import (
    HEIGHT,
    Chart,
    Series,
    add_band,
    add_line,
    new_figure,
    one_of,
    series,
    share_bars,
    with_log,
)
from ga3c.statistics import interval_words, mean_curve
from ga3c.windows import bin_edges, histogram, role_shares, shares

Groups = Sequence[Group[Run]]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

# Of the axes along which scores are drawn: name in the windows, divisor, words.
SCALES = {"minutes": ("time_s", 60.0, "minutes of training"), "frames": ("frames", 1.0, "frames")}
_MINUTES = SCALES["minutes"]
# Words, mean of a window, its histogram, and the unit.
QUEUES = (
    ("prediction queue", "prediction_queue_depth", "prediction_queue_histogram", "requests that wait"),
    ("training queue", "training_queue_depth", "training_queue_histogram", "samples that wait"),
    ("prediction batch", "prediction_batch_mean", "prediction_batch_histogram", "states a prediction"),
)


def present(*charts: Chart | None) -> list[Chart]:
    """Those that there are."""
    return [chart for chart in charts if chart is not None]


def learning(groups: Groups) -> list[Chart]:
    """Scores over minutes and frames, a chart an environment."""
    return present(*(_learning_of(env, groups) for env in dict.fromkeys(group.env for group in groups)))


def _learning_of(env: str, groups: Groups) -> Chart | None:
    own = [
        (series(number), group, [run for run in group.members if run.score is not None and not run.is_simulated])
        for number, group in enumerate(groups)
        if group.env == env
    ]
    own = [(style, group, runs) for style, group, runs in own if runs]
    if not own:
        return None
    alternatives = {}
    for words, (x, divisor, title) in SCALES.items():
        figure = new_figure(title, "return, mean of the last 100 games", height=HEIGHT + 100)
        for style, group, runs in own:
            add_curves(figure, [run.curve(x, "episode_return_mean") for run in runs], divisor, style, group.agent)
        alternatives[words] = figure.update_layout(showlegend=len(own) > 1)
    intervals = dict.fromkeys(interval_words(len(runs)) for _, _, runs in own)
    text = (
        "The return of whole games, never clipped, as the mean of the last 100 that ended. "
        f"Each line: {'; '.join(intervals)}" + (" (thin lines: the seeds)." if len(own[0][2]) > 1 else ".")
    )
    return Chart(f"Learning curve, {env}", text, with_log(one_of(alternatives), "x"), is_wide=True)


def add_curves(figure: go.Figure, curves: Sequence[Curve], divisor: float, style: Series, name: str) -> None:
    """Each seed thin to its end; their mean and its interval as far as all seeds go."""
    curves = [(x / divisor, y) for x, y in curves]
    mean = mean_curve(curves)
    if mean is None or mean.low is None or mean.high is None:
        for number, (x, y) in enumerate(curves):
            add_line(figure, x, y, style, name, width=2.4, showlegend=number == 0)
        return
    thin = style._replace(dash="solid")
    for x, y in curves:
        add_line(figure, x, y, thin, name, width=0.8, opacity=0.6, showlegend=False, hoverinfo="skip")
    add_band(figure, mean.x, mean.low, mean.high, style, name)
    add_line(figure, mean.x, mean.mean, style, name, width=2.6)


def over_time(groups: Groups, figures: dict[str, tuple[str, str]], title: str, words: str) -> Chart | None:
    """Figures of the windows over minutes, a line a run; a button for each figure.

    ``figures`` are names in the windows and words of the axis, by the words of the button.
    """
    drawn = {button: _lines(groups, name, unit) for button, (name, unit) in figures.items()}
    drawn = {button: figure for button, figure in drawn.items() if figure.data}
    return Chart(title, words, with_log(one_of(drawn), "y")) if drawn else None


def _lines(groups: Groups, name: str, unit: str) -> go.Figure:
    x, divisor, title = _MINUTES
    figure = new_figure(title, unit)
    for number, group in enumerate(groups):
        is_first = True
        for run in group.members:
            minutes, values = run.curve(x, name)
            if len(minutes):
                crowd = len(group.members) > 1
                add_line(figure, minutes / divisor, values, series(number), group.name, showlegend=is_first,
                         width=1.2 if crowd else 1.6, opacity=0.75 if crowd else 1.0)  # fmt: skip
                is_first = False
    is_simulated = any(run.is_simulated for group in groups for run in group.members)  # which every chart must say
    return figure.update_layout(showlegend=len(groups) > 1 or is_simulated)


def distribution(groups: Groups, figures: dict[str, tuple[str, str]], title: str, words: str) -> Chart | None:
    """How often each value was seen in all windows, in per cent, bars of a group; ``figures`` as in ``over_time``."""
    drawn = {button: _bars(groups, name, unit) for button, (name, unit) in figures.items()}
    drawn = {button: figure for button, figure in drawn.items() if figure.data}
    return Chart(title, words, with_log(one_of(drawn), "y")) if drawn else None


def _bars(groups: Groups, name: str, unit: str) -> go.Figure:
    counts = {
        (series(number), group.name): histogram((line for run in group.members for line in run.rates), name)
        for number, group in enumerate(groups)
    }
    return bars({place: values for place, values in counts.items() if values}, unit)


def bars(counts: dict[tuple[Series, str], dict[float, int]], unit: str) -> go.Figure:
    """Shares of each value (%), in common bins, by series and name; each has counts."""
    figure = new_figure(unit, "share (%)")
    if not counts:
        return figure
    edges = bin_edges(value for values in counts.values() for value in values)
    middles, widths = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    for (style, name), values in counts.items():
        figure.add_bar(x=middles.tolist(), y=shares(values, edges).round(3).tolist(), name=name, legendgroup=name,
                       marker_color=style.colour, hovertemplate="%{y:.2f} %")  # fmt: skip
    figure.update_layout(showlegend=len(counts) > 1 or any("simulated" in name for _, name in counts))
    if widths == 1 and len(middles) <= 16:
        figure.update_xaxes(dtick=1)
    return figure


def time_shares(groups: Groups) -> Chart | None:
    """What each role spent its time on, over the whole runs."""
    found = {
        f"{group.name}: {role}" if len(groups) > 1 or group.members[0].is_simulated else role: spent
        for group in groups
        for role, spent in role_shares(line for run in group.members for line in run.rates).items()
    }
    words = (
        "What the workers of each role were at. Predictors and trainers that wait are idle; actors that wait have"
        " states that wait for an action, or rollouts that wait for training."
    )
    return Chart("Where the time goes", words, share_bars(found)) if found else None


def throughput(groups: Groups) -> list[Chart]:
    """Predictions and training."""
    training = {
        "samples": ("training_samples_per_s", "training samples / s"),
        "updates": ("tps", "updates / s"),
        "batch": ("training_batch_mean", "samples an update"),
    }
    return present(
        over_time(
            groups,
            {"PPS": ("pps", "predictions / s")},
            "Predictions a second (PPS)",
            "Predictions that chose an action for a live step: agent steps a second.",
        ),
        over_time(
            groups,
            training,
            "Training",
            "Live samples that updates were made of, a second; updates a second (TPS); samples in an update.",
        ),
    )


def lag(groups: Groups) -> list[Chart]:
    """Policy lag over time and as a distribution."""
    return present(
        over_time(
            groups,
            {"mean": ("policy_lag_mean", "versions, mean"), "largest": ("policy_lag_max", "versions, largest")},
            "Policy lag over time",
            "How old what is learnt from is: the model's version at the update, less the version that chose the"
            " action. Exact, of every sample.",
        ),
        distribution(
            groups,
            {"lag": ("policy_lag_histogram", "versions")},
            "Policy lag of all samples",
            "How many of the samples that were trained on had each lag.",
        ),
    )


def queues(groups: Groups) -> list[Chart]:
    """Queue depths and batches over time and as distributions."""
    means = {words: (mean, unit) for words, mean, _, unit in QUEUES}
    counts = {words: (histogram_name, unit) for words, _, histogram_name, unit in QUEUES}
    return present(
        over_time(
            groups,
            means,
            "Queues and batches over time",
            "What waits in the two queues in which actors meet the model, and the states a prediction takes;"
            " means of windows.",
        ),
        distribution(
            groups,
            counts,
            "Queues and batches, how often",
            "The larger the batches, the better a device is used. A queue that is seldom empty is served too slowly.",
        ),
    )


def time(groups: Groups) -> list[Chart]:
    """What roles did, and how long they waited."""
    unit = "share of time that waits"
    waits = {
        "actors": ("actor_wait_share", unit),
        "predictors": ("predictor_wait_share", unit),
        "trainers": ("trainer_wait_share", unit),
        "cores busy": ("cores_busy_share", "share of the cores' time"),
    }
    return present(
        time_shares(groups),
        over_time(
            groups,
            waits,
            "Waiting over time",
            "Whoever hardly waits holds the run back. Cores busy: of those that the run may use, whoever used them.",
        ),
    )


def inside(groups: Groups) -> list[Chart]:
    """Losses and what belongs to them."""
    figures = {
        "entropy": ("entropy", "entropy of the policy (nats)"),
        "value loss": ("value_loss", "value loss"),
        "policy loss": ("policy_loss", "policy loss"),
        "gradient": ("gradient_norm", "norm before clipping"),
        "learning rate": ("learning_rate", "learning rate"),
    }
    return present(
        over_time(
            groups,
            figures,
            "Inside the updates",
            "Entropy falls as the policy makes up its mind; at 0 nothing is explored any more. Losses are means a"
            " sample, without their costs.",
        )
    )
