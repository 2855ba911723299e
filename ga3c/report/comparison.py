"""The charts of one comparison, from the rows of its record; the figures are those of ``ga3c compare``."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from ga3c.compare.cells import Row, cell_of
from ga3c.compare.figures import (
    SpeedUp,
    curve,
    histogram,
    label,
    labels,
    measured,
    networks,
    number,
    rate,
    role_shares,
    speed_ups,
    warm,
    with_scores,
)
from ga3c.compare.report import RATES, caption, differences
from ga3c.report.charts import QUEUES, SCALES, add_curves, bars, present
from ga3c.report.page import Section, Table, Tile
from ga3c.report.style import (
    HEIGHT,
    Chart,
    Series,
    add_line,
    log_axis,
    new_figure,
    one_of,
    series,
    series_of_modes,
    share_bars,
    with_log,
)
from ga3c.statistics import interval_words

_WITH_LAG = (("policy lag", "policy_lag_mean", "policy_lag_histogram", "versions"), *QUEUES)


def section(rows: Sequence[Row], name: str) -> Section:
    """What a comparison came to: its figures, charts and differences."""
    found = measured(rows)
    failed = [row for row in rows if row["error"] is not None and row["cell"]["kind"] != "trial"]
    styles = series_of_modes(labels(rows))
    by_network = [chart for network in networks(found) for chart in _within_runs(found, network, styles)]
    return Section(
        title=f"Comparison {name}",
        words="Modes on equal terms, each run a fresh process; rates are medians over the windows after the warm-up.",
        facts=caption(rows),
        notes=[f"{cell_of(row).title} failed: {row['error'].splitlines()[-1]}" for row in failed],
        tiles=[_tile(s) for s in speed_ups(rows, "pps")],
        charts=present(
            _throughput(found, styles), _speed_up(rows), *_scores(rows, styles), _time(found), _grid(rows), *by_network
        ),
        tables=_differences(rows),
    )


def _tile(s: SpeedUp) -> Tile:
    bounds = f"{s.interval.kind} {s.interval.low:.2f} to {s.interval.high:.2f}"
    return Tile(f"{s.interval.middle:.2f} times", f"{s.pair}, network {s.network}", f"predictions a second; {bounds}")


def _throughput(found: Sequence[Row], styles: dict[str, Series]) -> Chart | None:
    drawn = {}
    for name, unit in RATES.items():
        figure = new_figure("network", f"{unit}" + (" (predictions / s)" if name == "pps" else ""))
        for title in labels(found):
            bars = {network: _rates_of(found, title, network, name) for network in networks(found)}
            bars = {network: figures for network, figures in bars.items() if figures}
            middles = np.asarray([np.median(figures) for figures in bars.values()])
            figure.add_bar(
                x=list(bars), y=middles.tolist(), name=title, legendgroup=title, marker_color=styles[title].colour,
                text=[number(float(middle)) for middle in middles], textposition="inside", insidetextanchor="start",
                insidetextfont={"color": "#ffffff"}, hovertemplate="%{y:,.0f} (%{customdata})",
                customdata=[", ".join(number(figure) for figure in figures) for figures in bars.values()],
                error_y={
                    "array": [max(f) - m for f, m in zip(bars.values(), middles, strict=True)],
                    "arrayminus": [m - min(f) for f, m in zip(bars.values(), middles, strict=True)],
                    "color": "rgba(110,118,130,0.9)", "thickness": 1.4, "width": 4,
                },
            )  # fmt: skip
        drawn[unit] = figure.update_yaxes(rangemode="tozero")
    words = "Medians of the runs; the thin bars reach from the least to the most of them."
    return Chart("Throughput", words, one_of(drawn)) if found else None


def _rates_of(found: Sequence[Row], title: str, network: str, name: str) -> list[float]:
    own = [row for row in found if label(row) == title and row["cell"]["network"] == network]
    return [figure for row in own if (figure := rate(row, name)) is not None]


def _speed_up(rows: Sequence[Row]) -> Chart | None:
    drawn = {}
    for name, unit in RATES.items():
        made = speed_ups(rows, name)
        figure = new_figure("network: MFLOP a state, forward pass", f"GA3C / A3C in {unit}")
        for place, pair in enumerate(dict.fromkeys(s.pair for s in made)):
            own, style = [s for s in made if s.pair == pair], series(place)
            figure.add_scatter(
                x=[s.mflop for s in own], y=[s.interval.middle for s in own], name=pair, mode="lines+markers+text",
                line={"color": style.colour, "dash": style.dash}, marker={"size": 9, "symbol": style.symbol},
                text=[s.network for s in own], textposition="bottom center", hovertemplate="%{y:.2f} times",
                error_y={
                    "array": [s.interval.high - s.interval.middle for s in own],
                    "arrayminus": [s.interval.middle - s.interval.low for s in own], "thickness": 1.4, "width": 5,
                },
            )  # fmt: skip
        figure.add_hline(1.0, line={"color": "rgba(128,128,128,0.6)", "dash": "dot", "width": 1})
        figure.update_yaxes(rangemode="tozero").update_layout(showlegend=True)
        if made:
            drawn[unit] = log_axis(figure, [s.mflop for s in made])
    made = speed_ups(rows, "pps")
    words = (
        "How many times as fast GA3C is as A3C, by what the network costs. Medians of the ratios within repeats, with"
        f" the {made[0].interval.kind}."
    ) if made else ""  # fmt: skip
    return Chart("Speed-up by the network's cost", words, one_of(drawn)) if made else None


def _within_runs(found: Sequence[Row], network: str, styles: dict[str, Series]) -> list[Chart]:
    """Queues, batches and lag of one network, over time and as distributions."""
    own = [row for row in found if row["cell"]["network"] == network]
    over_time, counts = {}, {}
    for words, mean, histogram_name, unit in _WITH_LAG:
        figure = new_figure("seconds of training", unit)
        for row in own:
            # The last window ends with the run, after a moment: its means are of nothing.
            points = [(w["time_s"], w[mean]) for w in row["windows"][:-1] if w.get(mean) is not None]
            if points:
                x, y = np.asarray(points, np.float64).T
                seen = any(trace.name == label(row) for trace in figure.data)
                add_line(figure, x, y, styles[label(row)], label(row), showlegend=not seen)
        if figure.data:
            over_time[words] = figure
        seen_counts = {t: histogram([row for row in own if label(row) == t], histogram_name) for t in labels(own)}
        if any(seen_counts.values()):
            counts[words] = bars({(styles[t], t): c for t, c in seen_counts.items() if c}, unit)
    about = f"network {network}"
    return present(
        Chart(
            f"Queues, batches and policy lag over time, {about}",
            "Means of windows, a line a run; the first windows are the warm-up. Queues are GA3C's alone.",
            with_log(one_of(over_time), "y"),
        )
        if over_time
        else None,
        Chart(
            f"Queues, batches and policy lag, how often, {about}",
            "Of all runs together, after the warm-up.",
            with_log(one_of(counts), "y"),
        )
        if counts
        else None,
    )


def _scores(rows: Sequence[Row], styles: dict[str, Series]) -> list[Chart]:
    found = with_scores(rows)
    charts = []
    for network in networks(found):
        own = [row for row in found if row["cell"]["network"] == network]
        drawn = {}
        for words, (name, divisor, unit) in SCALES.items():
            figure = new_figure(unit, "return, mean of the last 100 games", height=HEIGHT + 60)
            for title in labels(own):
                curves = [curve(row, name) for row in own if label(row) == title]
                add_curves(figure, curves, divisor, styles[title], title)
            drawn[words] = figure
        seeds = dict.fromkeys(interval_words(sum(label(row) == title for row in own)) for title in labels(own))
        words = f"Each line: {'; '.join(seeds)}."
        charts.append(Chart(f"Scores, network {network}", words, one_of(drawn), is_wide=True))
    return charts


def _time(found: Sequence[Row]) -> Chart | None:
    shares = {
        network: {
            f"{title}: {role}": spent
            for title in labels(found)
            for role, spent in role_shares(
                [row for row in found if label(row) == title and row["cell"]["network"] == network]
            ).items()
        }
        for network in networks(found)
    }
    drawn = {network: share_bars(roles) for network, roles in shares.items() if roles}
    words = "What the workers of each role were at, after the warm-up; a button for each network."
    return Chart("Where the time goes", words, one_of(drawn), is_wide=True) if drawn else None


def _grid(rows: Sequence[Row]) -> Chart | None:
    """PPS over the number of actors, a line for each number of predictors and trainers, a button for each network."""
    found = [row for row in measured(rows, "grid") if warm(row)]
    drawn: dict[str, go.Figure] = {}
    for network in networks(found):
        figure = new_figure("actors (processes)", "PPS (predictions / s)")
        points: dict[tuple[int, int], dict[int, list[float]]] = {}
        for row in found:
            if row["cell"]["network"] == network:
                counts = row["cell"]["settings"]
                by_actors = points.setdefault((counts["predictors"], counts["trainers"]), {})
                by_actors.setdefault(counts["actors"], []).append(rate(row, "pps") or 0.0)
        for place, ((predictors, trainers), by_actors) in enumerate(sorted(points.items())):
            x = np.asarray(sorted(by_actors), np.float64)
            y = np.asarray([np.median(by_actors[n]) for n in sorted(by_actors)])
            add_line(figure, x, y, series(place), f"{predictors} predictors, {trainers} trainers", mode="lines+markers")
        actors = [row["cell"]["settings"]["actors"] for row in found]
        drawn[network] = log_axis(figure, actors).update_yaxes(rangemode="tozero")
    words = "Mode ga3c over its counts; medians of the repeats."
    return Chart("How many actors, predictors and trainers", words, one_of(drawn), is_wide=True) if drawn else None


def _differences(rows: Sequence[Row]) -> list[Table]:
    head, lines = differences(rows)
    words = "Preprocessing, networks, losses and every option that is not listed are the same."
    return [Table("What differs between the modes", words, head, lines)] if lines else []
