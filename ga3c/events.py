"""What a run tells the Python program that started it: each update, each finished game, and how it ended."""

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ga3c.user_code import end_if_forked

EVENTS_KEPT = 10_000  # that wait for callbacks: seconds of the fastest training, a few MB


class UpdateEvent(NamedTuple):
    """An update of the model.

    Fields:
      number: of updates, this one and those before a resume included.
      env_steps: agent steps that had been taken.
      time_s: seconds of training.
      samples: live samples in its batch; the losses and the entropy are means over them.
      policy_loss, value_loss, entropy: parts of the loss, without their costs.
      gradient_norm: before clipping.
      learning_rate: that it was made with.
      policy_lag: versions between the model that chose the actions and the one that was updated, in the mean.
    """

    number: int
    env_steps: int
    time_s: float
    samples: int
    policy_loss: float
    value_loss: float
    entropy: float
    gradient_norm: float
    learning_rate: float
    policy_lag: float


class EpisodeEvent(NamedTuple):
    """A finished game.

    Fields:
      episode_return: never clipped.
      length: in agent steps.
      env_steps: agent steps that the run had taken.
      time_s: seconds of training.
    """

    episode_return: float
    length: int
    env_steps: int
    time_s: float

    def line(self) -> dict[str, Any]:
        """As in ``metrics.jsonl``."""
        return {
            "kind": "episode",
            "time_s": self.time_s,
            "env_steps": self.env_steps,
            "return": self.episode_return,
            "length": self.length,
        }


OnUpdate = Callable[[UpdateEvent], object]
OnEpisode = Callable[[EpisodeEvent], object]


@dataclass(frozen=True)
class Run:
    """A training run that has ended.

    Attributes:
      folder: what it has left there can be loaded, evaluated and resumed.
      exitcode: 0, also where a callback has stopped it; 128 and its number where a signal has.
      env_steps: agent steps, those before a resume included.
      updates: likewise.
      time_s: seconds of training, likewise.
      score: mean return of the last 100 games, never clipped; None if none was finished.
    """

    folder: Path
    exitcode: int
    env_steps: int
    updates: int
    time_s: float
    score: float | None


class Events:
    """Takes events from the threads in which they happen, and tells them, in order, in the one that calls ``tell``.

    Callbacks that are slower than the training do not hold it up: of the events that wait, the newest are kept.

    Attributes:
      on_update, on_episode: the callbacks.
      lost: how many events were not kept.
    """

    def __init__(self, on_update: OnUpdate | None = None, on_episode: OnEpisode | None = None) -> None:
        """A callback that returns False asks the run to stop."""
        self.on_update = on_update
        self.on_episode = on_episode
        self.lost = 0
        self._has_ended = False
        self._waiting: deque[Callable[[], object]] = deque(maxlen=EVENTS_KEPT)

    def updated(self, event: UpdateEvent) -> None:
        """The model was updated. As ``finished``, for one thread at a time: the meters' lock sees to it."""
        if (call := self.on_update) is not None:
            self._keep(partial(call, event))

    def finished(self, event: EpisodeEvent) -> None:
        """A game has ended."""
        if (call := self.on_episode) is not None:
            self._keep(partial(call, event))

    def _keep(self, call: Callable[[], object]) -> None:
        self.lost += len(self._waiting) == EVENTS_KEPT
        self._waiting.append(call)

    def tell(self, within_s: float) -> bool:
        """Calls back for the events that wait, none after ``within_s``; returns whether the run is to go on.

        Raises what a callback raises.
        """
        if self._has_ended:
            return False
        until, process = time.monotonic() + within_s, os.getpid()
        for _ in range(len(self._waiting)):  # those that come meanwhile are for the next call
            answer = self._waiting.popleft()()
            end_if_forked(process)
            if isinstance(answer, bool | np.bool_) and not answer:
                self.on_update = self.on_episode = None
                self._has_ended = True  # nobody is called again
                return False
            if time.monotonic() > until:
                break
        return True
