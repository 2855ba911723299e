"""What the tuner tries, in which order, and what it believes of it. Pure decisions, without a clock of their own.

Three stages, each with a share of the time:

1. *games*: how many actors, with how many environments each;
2. *around the best*: predictors, trainers and batches are varied, one at a time, around the best so far;
3. *the best again*: the best few and the setting that the search began with, by turns, so that a machine that drifts
   meets all of them alike. The more windows a setting has, the surer its mean: promising ones get the most.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from ga3c.config import TrainConfig

Objective = Literal["pps", "training_samples"]

_STAGE_ENDS = (0.4, 0.65)  # shares of the time; the rest is for the best again
_FINALISTS = 3
_MOST_GAMES_A_CORE = 64
_SURE = 3.0  # standard errors of a difference that is taken for one, of many windows: more of few
_WORTH = 0.02  # a gain below that is not worth another setting
_FEWEST = 4  # windows without which nothing is sure
_FIRST_BATCH = 40  # to try where training batches are whatever there is


class Setting(NamedTuple):
    """Counts and batches, by the names of ``TrainConfig``."""

    actors: int
    envs_per_actor: int
    predictors: int
    trainers: int
    min_training_batch: int
    max_prediction_batch: int


class Window(NamedTuple):
    """What was measured in about a second: predictions and training samples a second, and the mean policy lag.

    The lag is None without an update: of a setting that trains less than once a second.
    """

    pps: float
    training_samples: float
    lag: float | None


class Trials:
    """Everything that was measured, and which of it is best."""

    def __init__(self, objective: Objective, max_lag: float) -> None:
        """A setting whose mean lag is above ``max_lag`` versions comes after all others."""
        self._objective: Objective = objective
        self._max_lag = max_lag
        self.windows: dict[Setting, list[Window]] = {}
        self._before: dict[Setting, int] = {}  # windows before the last stage

    def add(self, setting: Setting, windows: Sequence[Window]) -> None:
        """Adds what a trial has measured."""
        self.windows.setdefault(setting, []).extend(windows)

    def start_over(self) -> None:
        """What is measured again from here on counts alone: the best of many was lucky until now."""
        self._before = {setting: len(windows) for setting, windows in self.windows.items()}

    def counted(self, setting: Setting) -> int:
        """How many windows its mean is of."""
        return len(self._rates(setting))

    def mean(self, setting: Setting) -> float:
        """Of the objective."""
        return statistics.fmean(self._rates(setting))

    def error(self, setting: Setting) -> float:
        """Standard error of the mean; infinite for a single window."""
        rates = self._rates(setting)
        return statistics.stdev(rates) / math.sqrt(len(rates)) if len(rates) > 1 else math.inf

    def lag(self, setting: Setting) -> float:
        """Mean policy lag; infinite where no update was seen."""
        lags = [window.lag for window in self.windows[setting] if window.lag is not None]
        return statistics.fmean(lags) if lags else math.inf

    def _rates(self, setting: Setting) -> list[float]:
        windows = self.windows[setting]
        counted = windows[self._before.get(setting, 0) :] or windows
        return [float(getattr(window, self._objective)) for window in counted]

    def is_within_bound(self, setting: Setting) -> bool:
        """Whether its policy lag is as low as was asked for."""
        return self.lag(setting) <= self._max_lag

    def ranking(self) -> list[Setting]:
        """The best first; those that lag too far behind last, the one that lags least first."""

        def key(setting: Setting) -> tuple[bool, float]:
            within = self.is_within_bound(setting)
            return not within, -self.mean(setting) if within else self.lag(setting)

        return sorted(self.windows, key=key)

    def choice(self, start: Setting) -> Setting:
        """The best, or ``start`` where the best is not surely better."""
        ranking = self.ranking()
        judged = [s for s in ranking if len(self.windows[s]) - self._before.get(s, 0) >= _FEWEST]
        if not self.is_within_bound(start):
            return next(filter(self.is_within_bound, judged), ranking[0])
        if start not in judged:
            return start
        best = judged[0]
        difference = self.mean(best) - self.mean(start)
        noise = _sure(self.counted(best) + self.counted(start) - 2) * math.hypot(self.error(best), self.error(start))
        return best if difference > max(noise, _WORTH * self.mean(start)) else start


def _sure(freedom: int) -> float:
    """Student's t for what ``_SURE`` is of the normal distribution (Cornish and Fisher's expansion)."""
    z = _SURE
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def search(
    trials: Trials,
    start: Setting,
    games: Sequence[tuple[int, int]],
    fits: Callable[[Setting], bool],
    share: Callable[[], float],
) -> Iterator[Setting]:
    """Yields the settings to try, each for one trial, until the time is up.

    Args:
      trials: what has been measured; whoever iterates adds each trial before it asks for the next.
      start: the setting to begin with.
      games: actors and environments an actor to try.
      fits: whether a setting can be run at all.
      share: of the time that has passed.
    """
    yield start
    for actors, envs in games:
        setting = start._replace(actors=actors, envs_per_actor=envs)
        if share() >= _STAGE_ENDS[0]:
            break
        if setting not in trials.windows and fits(setting):
            yield setting
    while share() < _STAGE_ENDS[1]:
        untried = [s for best in trials.ranking()[:2] for s in neighbours(best) if s not in trials.windows and fits(s)]
        if not untried:
            break
        yield untried[0]
    trials.start_over()
    while share() < 1.0:
        finalists = dict.fromkeys([*trials.ranking()[:_FINALISTS], start])
        # All of a round, so that each has met the same machine; the one with the fewest windows goes first.
        for setting in sorted(finalists, key=lambda s: len(trials.windows[s])):
            if share() >= 1.0:
                return
            yield setting


def neighbours(setting: Setting) -> list[Setting]:
    """Settings that differ in one thing that does not change the environments: batches first, which matter most."""
    s = setting
    changed = [
        s._replace(min_training_batch=2 * s.min_training_batch or _FIRST_BATCH),
        s._replace(min_training_batch=s.min_training_batch // 2),
        s._replace(predictors=s.predictors + 1),
        s._replace(trainers=s.trainers + 1),
        s._replace(predictors=s.predictors - 1),
        s._replace(trainers=s.trainers - 1),
    ]
    games = s.actors * s.envs_per_actor
    if s.max_prediction_batch < games:  # else a prediction can have all of them already
        changed.append(s._replace(max_prediction_batch=2 * s.max_prediction_batch))
    changed.append(s._replace(max_prediction_batch=min(games, s.max_prediction_batch) // 2))
    return [n for n in changed if n != s and min(n.predictors, n.trainers, n.max_prediction_batch) > 0]


def games_to_try(cores: int, start: Setting) -> list[tuple[int, int]]:
    """Actors and environments an actor: from one actor a core to four, from few environments to many.

    Nearest to ``start`` first, by how many games there are in all; not so many that to make them takes too long.
    """
    pairs = [(n * cores, envs) for n in (1, 2, 4) for envs in (4, 8, 16, 32) if n * envs <= _MOST_GAMES_A_CORE]
    games = start.actors * start.envs_per_actor
    return sorted(pairs, key=lambda pair: abs(math.log(pair[0] * pair[1] / games)))


def with_setting(config: TrainConfig, setting: Setting) -> TrainConfig:
    """The configuration with a setting's counts and batches."""
    return dataclasses.replace(config, **setting._asdict())


def setting_of(config: TrainConfig) -> Setting:
    """The counts and batches of a configuration."""
    return Setting(*(getattr(config, name) for name in Setting._fields))
