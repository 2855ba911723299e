"""Scores over seeds and games, with how sure they are. Pure, and the same at every call.

The aggregates and their intervals are those of Agarwal et al. 2021 (arXiv:2108.13264): a score is one run's; runs are
drawn again within each game (a stratified bootstrap), games are not. With scipy, which is an extra.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
FEWEST_FOR_INTERVAL = 3  # with two figures a bootstrap says nothing that the range does not
_RESAMPLES = 2000
_POINTS = 200  # of a mean curve


@dataclass(frozen=True)
class Interval:
    """A figure and how sure it is.

    Attributes:
      middle, low, high: of the figure.
      is_bootstrap: low and high bound the 95 % bootstrap interval; else they are the extremes.
    """

    middle: float
    low: float
    high: float
    is_bootstrap: bool

    @property
    def kind(self) -> str:
        """What low and high are, in words."""
        return "95 % bootstrap interval" if self.is_bootstrap else "range"


def interval(figures: Sequence[float], statistic: Callable[..., Any] = np.median) -> Interval:
    """A statistic of a few figures with its interval.

    Args:
      figures: at least one.
      statistic: takes an array and ``axis``.
    """
    middle = float(statistic(np.asarray(figures), axis=0))
    if len(figures) < FEWEST_FOR_INTERVAL:
        return Interval(middle, min(figures), max(figures), False)
    low, high = bootstrap([np.asarray(figures)], statistic)
    return Interval(middle, float(low), float(high), True)


def bootstrap(samples: Sequence[NDArray[Any]], statistic: Callable[..., Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The bounds of the percentile bootstrap interval along the first axis.

    Args:
      samples: each [N, ...], N at least 2, drawn from by itself; several are the strata.
      statistic: takes the samples, each an array, and ``axis``.

    Returns:
      low and high, each [...].
    """
    from scipy.stats import bootstrap as resample

    found = resample(
        tuple(samples), statistic, axis=0, vectorized=True, n_resamples=_RESAMPLES, confidence_level=CONFIDENCE,
        method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    return found.confidence_interval.low, found.confidence_interval.high


def interquartile_mean(*games: NDArray[Any], axis: int = -1) -> Any:
    """Mean of the middle half of all runs of all games; each of ``games`` has its runs along ``axis``."""
    from scipy.stats import trim_mean

    return trim_mean(np.concatenate(games, axis=axis), 0.25, axis=axis)


def median_of_games(*games: NDArray[Any], axis: int = -1) -> Any:
    """Median over the games of each one's mean over its runs."""
    return np.median([game.mean(axis=axis) for game in games], axis=0)


def mean_of_games(*games: NDArray[Any], axis: int = -1) -> Any:
    """Mean over the games of each one's mean over its runs."""
    return np.mean([game.mean(axis=axis) for game in games], axis=0)


AGGREGATES: dict[str, Callable[..., Any]] = {
    "interquartile_mean": interquartile_mean,
    "median": median_of_games,
    "mean": mean_of_games,
}


class Estimate(NamedTuple):
    """A statistic, and the bounds of its 95 % bootstrap interval; None where a game has a single run."""

    value: float
    low: float | None
    high: float | None

    def words(self, form: str) -> str:
        """As ``18.8 (18.1 to 19.4)``; ``form`` is a format of numbers."""
        if self.low is None or self.high is None:
            return format(self.value, form)
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


def aggregate(scores: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    """Interquartile mean, median and mean of the scores of one agent.

    Args:
      scores: by game, of its runs; at least one game, and one run of each. Of several games they must be normalised.
    """
    games = [np.asarray(runs, np.float64) for runs in scores.values()]
    return {name: _estimate(games, statistic) for name, statistic in AGGREGATES.items()}


def over_seeds(scores: Sequence[float]) -> dict[str, Estimate]:
    """Interquartile mean, median and mean of the scores of one agent's runs of one game; at least one."""
    runs = np.asarray(scores, np.float64)
    return aggregate({"": scores}) | {"median": _estimate([runs], np.median)}


def _estimate(games: Sequence[NDArray[np.float64]], statistic: Callable[..., Any]) -> Estimate:
    value = float(statistic(*games, axis=0))
    if min(map(len, games)) < 2:
        return Estimate(value, None, None)
    low, high = bootstrap(games, statistic)
    return Estimate(value, float(low), float(high))


class MeanCurve(NamedTuple):
    """The mean of several curves, as far as all of them go.

    Fields:
      x, mean: [P] float64.
      low, high: [P]; the 95 % bootstrap interval, the extremes where there are two curves, None for one.
    """

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64] | None
    high: NDArray[np.float64] | None


def mean_curve(curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> MeanCurve | None:
    """Over what all of the curves have in common; None if that is nothing.

    Args:
      curves: x and y of each, both [N] with N its own and at least 1; x ascends.
    """
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if last <= first:
        return None
    common = np.linspace(first, last, _POINTS)
    figures = np.stack([np.interp(common, x, y) for x, y in curves])
    if len(curves) == 1:
        return MeanCurve(common, figures[0], None, None)
    few = len(curves) < FEWEST_FOR_INTERVAL
    low, high = (figures.min(axis=0), figures.max(axis=0)) if few else bootstrap([figures], np.mean)
    return MeanCurve(common, figures.mean(axis=0), low, high)


def interval_words(seeds: int) -> str:
    """What the band around the mean of so many curves is."""
    if seeds < 2:
        return "one seed"
    return f"mean of {seeds} seeds, " + ("95 % interval" if seeds >= FEWEST_FOR_INTERVAL else "and range")


def human_normalised(game: str | None, score: float) -> float | None:
    """(score - random) / (human - random), or None where the references are not known.

    They are those of no-op starts (Wang et al. 2015, arXiv:1511.06581, Table 2).

    Args:
      game: the Atari game in lower case, as in ``qbert``; None for anything else.
      score: a mean return, not clipped.
    """
    file = resources.files("ga3c") / "data" / "atari_noop_baselines.csv"
    with file.open(encoding="utf-8") as lines:
        references = {row["game"]: row for row in csv.DictReader(lines)}
    row = references.get(game or "")
    if row is None:
        return None
    random, human = float(row["random"]), float(row["human"])
    return (score - random) / (human - random)
