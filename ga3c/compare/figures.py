"""The figures of a comparison: rates of cells, speed-ups and their intervals, pooled counts. Pure.

A row is one line of ``results.jsonl``. Rows of several records carry the record's name under ``record``.
"""

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ga3c import windows
from ga3c.statistics import Interval, interval

_SHORTEST_CURVE_MIN = 1.0  # a run of fewer minutes says nothing of scores

Row = dict[str, Any]


def warm(row: Row) -> list[Row]:
    """The windows that count."""
    return [window for window in row.get("windows") or () if window["warm"]]


def measured(rows: Iterable[Row], kind: str = "mode") -> list[Row]:
    """The rows of a kind that did not fail."""
    return [row for row in rows if row["cell"]["kind"] == kind and row["error"] is None]


def rate(row: Row, name: str) -> float | None:
    """The median of a figure over the warm windows; None if there is none. A window without steps has a rate of 0."""
    found = warm(row)
    return statistics.median([window.get(name) or 0.0 for window in found]) if found else None


def number(figure: float) -> str:
    """Three digits or more, with commas."""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def device(row: Row) -> str:
    """Where it ran: as the run tells, or for a run that failed as it was asked to."""
    return str((row.get("run") or row["cell"]).get("device", row["cell"]["device"]))


def is_simulated(row: Row) -> bool:
    """Whether its device only waited."""
    return device(row).startswith("simulated") or row["cell"]["device"].startswith("simulated")


def label(row: Row) -> str:
    """Mode and device, and the record where there are several; one label is one series of a chart."""
    record = f", {row['record']}" if row.get("record") else ""
    return f"{row['cell']['mode'].upper()} ({device(row)}){record}"


def labels(rows: Iterable[Row]) -> list[str]:
    """Every label once: A3C first, GA3C last, and records in their order."""
    order = {"A3C": 0, "A2C": 1, "GA3C": 2}
    records = list(dict.fromkeys(row.get("record", "") for row in rows))
    found = {label(row): (records.index(row.get("record", "")), order.get(label(row).split()[0], 3)) for row in rows}
    return sorted(found, key=lambda name: (*found[name], "(cpu)" not in name, name))


def networks(rows: Iterable[Row]) -> dict[str, float]:
    """MFLOP a state by network, from the smallest on."""
    found = {row["cell"]["network"]: float(row["run"]["mflop_per_state"]) for row in rows if row.get("run")}
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


@dataclass(frozen=True)
class SpeedUp:
    """How many times as fast GA3C was as A3C.

    Attributes:
      network, mflop: name, and MFLOP a state.
      a3c, ga3c: labels of the two.
      ratios: of each repeat that has both.
      interval: of their median.
    """

    network: str
    mflop: float
    a3c: str
    ga3c: str
    ratios: tuple[float, ...]
    interval: Interval

    @property
    def pair(self) -> str:
        """Both labels, as a fraction."""
        return f"{self.ga3c} / {self.a3c}"


def speed_ups(rows: Sequence[Row], name: str) -> list[SpeedUp]:
    """The speed-up in the rate ``name`` for each network and pair of one record, from ratios within repeats."""
    found = measured(rows)
    by_place: dict[tuple[str, str], dict[int, float]] = {}
    for row in found:
        figure = rate(row, name)
        if figure is not None:
            by_place.setdefault((label(row), row["cell"]["network"]), {})[row["cell"]["repeat"]] = figure
    mode = {label(row): row["cell"]["mode"] for row in found}
    record = {label(row): row.get("record") for row in found}
    pairs = [
        (a, g)
        for a in labels(found)
        for g in labels(found)
        if (mode[a], mode[g]) == ("a3c", "ga3c") and record[a] == record[g]
    ]
    made = (
        _speed_up(by_place.get((a, network), {}), by_place.get((g, network), {}), network, mflop, a, g)
        for a, g in pairs
        for network, mflop in networks(found).items()
    )
    return [speed_up for speed_up in made if speed_up is not None]


def _speed_up(
    slow: dict[int, float], fast: dict[int, float], network: str, mflop: float, a3c: str, ga3c: str
) -> SpeedUp | None:
    """None where no repeat has both. ``slow`` and ``fast`` are rates by repeat."""
    ratios = tuple(fast[r] / slow[r] for r in sorted(slow.keys() & fast.keys()) if slow[r] > 0)
    return SpeedUp(network, mflop, a3c, ga3c, ratios, interval(ratios)) if ratios else None


def histogram(rows: Iterable[Row], name: str) -> dict[float, int]:
    """A histogram pooled over the warm windows, counts by value; empty where no run kept it."""
    return windows.histogram((window for row in rows for window in warm(row)), name)


def role_shares(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Shares of each role's time, by what it did, pooled over the warm windows; a role without time is left out."""
    return windows.role_shares(window for row in rows for window in warm(row))


def with_scores(rows: Iterable[Row]) -> list[Row]:
    """The rows that say something of learning: not of rates alone, and not on a simulated device, where none is."""
    return [
        row
        for row in measured(rows)
        if (row["comparison"]["until_score"] is not None or row["cell"]["minutes"] >= _SHORTEST_CURVE_MIN)
        and not is_simulated(row)
        and len(curve(row, "time_s")[0]) > 1
    ]


def curve(row: Row, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The windows' ``name`` and their mean returns, both [N] float64, from the first game on."""
    points = [(w[name], w["episode_return_mean"]) for w in row["windows"] if w.get("episode_return_mean") is not None]
    x, y = np.asarray(points, np.float64).reshape(-1, 2).T
    return x, y


@dataclass(frozen=True)
class Published:
    """A pair of PPS that a paper gives, on its hardware."""

    hardware: str
    network: str
    a3c_pps: float
    ga3c_pps: float
    source: str


def published() -> list[Published]:
    """Table 2 of the GA3C paper's first version: A3C on the CPU, GA3C on the GPU."""
    text = (resources.files("ga3c") / "data" / "ga3c_table2.csv").read_text(encoding="utf-8")
    return [
        Published(
            f"{row['gpu']}, {row['cpu']}", row["network"], float(row["a3c_pps"]), float(row["ga3c_pps"]), row["source"]
        )
        for row in csv.DictReader(text.splitlines())
    ]
