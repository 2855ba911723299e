"""What a run measures: counters that every role adds to, and windows of rates."""

import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ga3c.envs import Episode
from ga3c.events import EpisodeEvent, Events, UpdateEvent
from ga3c.machine import CoreClock

RETURNS_KEPT = 100  # episodes in the mean that is shown
_COUNTS = ("actors", "actors_playing", "predictors", "trainers")


class UpdateFigures(NamedTuple):
    """What one update did.

    Fields:
      samples: live samples in its batch; the losses and the entropy are means over them.
      policy_loss, value_loss, entropy: parts of the loss, without their costs.
      gradient_norm: before clipping.
      learning_rate: that it was made with.
      lags: live samples by their policy lag, in versions.
    """

    samples: int
    policy_loss: float
    value_loss: float
    entropy: float
    gradient_norm: float
    learning_rate: float
    lags: dict[int, int]


@dataclass
class _Window:
    """Sums since the last window was closed. A histogram counts how often a value was seen."""

    began: float = field(default_factory=time.perf_counter)
    predictions: int = 0  # of live steps
    longest_gap_s: float = 0.0  # between two batches of predictions
    prediction_batches: Counter[int] = field(default_factory=Counter)  # by states, live or not
    prediction_depths: Counter[int] = field(default_factory=Counter)  # requests
    training_depths: Counter[int] = field(default_factory=Counter)  # samples
    updates: int = 0
    samples: int = 0  # live ones
    training_rows: int = 0
    lags: Counter[int] = field(default_factory=Counter)
    policy_loss: float = 0.0
    value_loss: float = 0.0
    entropy: float = 0.0
    gradient_norm: float = 0.0
    seconds: dict[str, defaultdict[str, float]] = field(default_factory=dict)  # by role and activity, of all workers


class Meters:
    """Thread-safe counters of one run.

    Attributes:
      env_steps: agent steps taken, those before a resume included: live predictions answered.
      updates: optimiser steps.
      samples: live samples of the updates, without those before a resume.
    """

    def __init__(
        self,
        frames_per_step: int,
        *,
        env_steps: int = 0,
        updates: int = 0,
        time_s: float = 0.0,
        returns: Iterable[float] = (),
        events: Events | None = None,
    ) -> None:
        """``env_steps`` to ``returns`` are what a resumed run had done before; ``events`` are told."""
        self.env_steps = env_steps
        self.updates = updates
        self.samples = 0
        self._frames_per_step = frames_per_step
        self._events = events or Events()
        self._began = time.perf_counter() - time_s
        self._lock = threading.Lock()  # guards all that follows, and the counts
        self._window = _Window()
        self._learning_rate: float | None = None
        self._returns: deque[float] = deque(returns, maxlen=RETURNS_KEPT)
        self._episodes: list[EpisodeEvent] = []
        self._predicted_at: float | None = None  # last
        self._cores = CoreClock()
        self._counts: dict[str, int | None] = dict.fromkeys(_COUNTS)
        self._unsure_windows = 0  # for how many what the roles spent their time with is not known

    @property
    def time_s(self) -> float:
        """Seconds of training, those before a resume included."""
        return time.perf_counter() - self._began

    @property
    def frames(self) -> int:
        """Emulator frames: ``env_steps * frame_skip``."""
        return self.env_steps * self._frames_per_step

    def predicted(self, live: int, rows: int, episodes: Iterable[Episode], batches: int = 1) -> None:
        """Actions were chosen for ``batches`` batches of ``rows`` states each, ``live`` steps in all."""
        with self._lock:
            w, now = self._window, time.perf_counter()
            if self._predicted_at is not None and now - self._predicted_at > w.longest_gap_s:
                w.longest_gap_s = now - self._predicted_at
            self._predicted_at = now
            self.env_steps += live
            w.predictions += live
            w.prediction_batches[rows] += batches
            for episode in episodes:
                self._returns.append(episode.episode_return)
                event = EpisodeEvent(*episode, self.env_steps, round(self.time_s, 3))
                self._episodes.append(event)
                self._events.finished(event)

    def updated(self, update: UpdateFigures, rows: int) -> None:
        """The model was updated with a batch of ``rows`` samples, live or not."""
        with self._lock:
            self.updates += 1
            self.samples += update.samples
            self._learning_rate = update.learning_rate
            w = self._window
            w.updates += 1
            w.samples += update.samples
            w.training_rows += rows
            for versions, count in update.lags.items():  # Counter.update asks first what it was given
                w.lags[versions] += count
            w.policy_loss += update.policy_loss * update.samples
            w.value_loss += update.value_loss * update.samples
            w.entropy += update.entropy * update.samples
            w.gradient_norm += update.gradient_norm
            if self._events.on_update is not None:
                lag = sum(lag * count for lag, count in update.lags.items()) / max(1, update.samples)
                self._events.updated(
                    UpdateEvent(self.updates, self.env_steps, round(self.time_s, 3), *update[:-1], policy_lag=lag)
                )

    def spent(self, role: str, **seconds: float) -> None:
        """A worker of ``role`` spent so long on each of its activities; those that begin with ``waiting`` are idle."""
        with self._lock:
            activities = self._window.seconds.setdefault(role, defaultdict(float))
            for activity, spent in seconds.items():
                activities[activity] += spent

    def sampled_depths(self, prediction_queue: int, training_queue: int) -> None:
        """The supervisor looked at both queues: requests, and samples, that wait."""
        with self._lock:
            self._window.prediction_depths[prediction_queue] += 1
            self._window.training_depths[training_queue] += 1

    def sampled_counts(self, **counts: int) -> None:
        """The supervisor says how many there are now of each that ``_COUNTS`` names."""
        self._counts = {name: counts[name] for name in _COUNTS}

    def suspended(self, seconds: float) -> None:
        """The whole run stood still for so long, which is no time of training."""
        with self._lock:
            self._began += seconds
            self._window.began += seconds
            self._window.longest_gap_s = 0.0
            self._predicted_at = None
            self._unsure_windows = 2  # what a role was at meanwhile is charged to this one or the next

    def _since_prediction(self) -> float:
        return 0.0 if self._predicted_at is None else time.perf_counter() - self._predicted_at

    def take_episodes(self) -> list[dict[str, Any]]:
        """The lines of episodes that ended since the last call."""
        with self._lock:
            episodes, self._episodes = self._episodes, []
        return [episode.line() for episode in episodes]

    @property
    def episode_return_mean(self) -> float | None:
        """Over the last 100 games, or as many as there were; None before the first."""
        returns = self.returns
        return sum(returns) / len(returns) if returns else None

    @property
    def returns(self) -> tuple[float, ...]:
        """Of the last 100 games, or as many as there were."""
        with self._lock:
            return tuple(self._returns)

    def rates(self) -> dict[str, Any]:
        """Closes the window and returns its figures, one ``"rates"`` line; what is not known is None."""
        mean_return = self.episode_return_mean
        with self._lock:
            w, self._window = self._window, _Window()
            seconds = max(time.perf_counter() - w.began, 1e-9)
            if self._unsure_windows:
                self._unsure_windows -= 1
                w.seconds.clear()
            return {
                "kind": "rates",
                "time_s": round(self.time_s, 3),
                "env_steps": self.env_steps,
                "frames": self.frames,
                "updates": self.updates,
                "pps": _ratio(w.predictions, seconds),
                "tps": _ratio(w.updates, seconds),
                "training_samples_per_s": _ratio(w.samples, seconds),
                "policy_lag_mean": _mean(w.lags),
                "policy_lag_max": max(w.lags, default=None),
                "prediction_batch_mean": _mean(w.prediction_batches),
                "training_batch_mean": _ratio(w.training_rows, w.updates),
                "prediction_gap_max_s": round(max(w.longest_gap_s, self._since_prediction()), 4),
                "prediction_queue_depth": _mean(w.prediction_depths),
                "training_queue_depth": _mean(w.training_depths),
                "policy_loss": _ratio(w.policy_loss, w.samples),
                "value_loss": _ratio(w.value_loss, w.samples),
                "entropy": _ratio(w.entropy, w.samples),
                "gradient_norm": _ratio(w.gradient_norm, w.updates),
                "learning_rate": self._learning_rate,
                "episode_return_mean": None if mean_return is None else round(mean_return, 4),
                **self._counts,
                "cores_busy_share": _rounded(self._cores.busy_share()),
                "actor_wait_share": _wait_share(w, "actor"),
                "predictor_wait_share": _wait_share(w, "predictor"),
                "trainer_wait_share": _wait_share(w, "trainer"),
                "role_seconds": {
                    role: {activity: round(spent, 3) for activity, spent in activities.items()}
                    for role, activities in w.seconds.items()
                },
                "prediction_batch_histogram": _histogram(w.prediction_batches),
                "policy_lag_histogram": _histogram(w.lags),
                "prediction_queue_histogram": _histogram(w.prediction_depths),
                "training_queue_histogram": _histogram(w.training_depths),
            }


def _ratio(numerator: float, denominator: float) -> float | None:
    ratio = numerator / denominator if denominator else math.nan
    return float(f"{ratio:.6g}") if math.isfinite(ratio) else None


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def _mean(histogram: Counter[int]) -> float | None:
    return _ratio(sum(value * count for value, count in histogram.items()), histogram.total())


def _histogram(counts: Counter[int]) -> dict[str, int]:
    return {str(value): counts[value] for value in sorted(counts)}


def _wait_share(window: _Window, role: str) -> float | None:
    """Share of the time of a role's workers in which they had nothing to do."""
    activities: Mapping[str, float] = window.seconds.get(role, {})
    waiting = sum(s for activity, s in activities.items() if activity.startswith("waiting"))
    return _ratio(waiting, sum(activities.values()))
