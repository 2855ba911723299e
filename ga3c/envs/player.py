"""Steps environments and keeps account: which steps are transitions, and how the games go that are being played."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ga3c.envs.base import Step, VectorEnv


class Episode(NamedTuple):
    """A finished game: its return without any clipping, and its length in agent steps."""

    episode_return: float
    length: int


class Player:
    """K environments in play.

    Attributes:
      states: [K, ...] the present states, valid until the next step.
      live: [K] bool, whether the next step is a transition; the one that follows an episode's end only resets.
      episodes: games that have ended; whoever reads them clears the list.
    """

    def __init__(self, env: VectorEnv) -> None:
        """Starts the first episodes."""
        self._env = env
        self._returns = np.zeros(env.num_envs)
        self._steps = 0
        self._not_played = np.zeros(env.num_envs, np.int64)  # of the steps, by the game that is being played
        self.states: NDArray[Any] = env.reset()
        self.live = np.ones(env.num_envs, np.bool_)
        self._all_live = True
        self.episodes: list[Episode] = []

    def step(self, actions: NDArray[np.int64]) -> Step:
        """Steps every environment; ``terminated`` and ``truncated`` are of transitions only."""
        step = self._env.step(actions)
        self.states = step.states
        self._returns += step.game_rewards
        self._steps += 1
        if self._all_live and not step.any_ended:
            return step  # nearly always
        self._not_played += ~self.live
        step = step._replace(terminated=step.terminated & self.live, truncated=step.truncated & self.live)
        self._note_games(step)
        self.live = ~(step.terminated | step.truncated)
        self._all_live = bool(self.live.all())
        return step

    def _note_games(self, step: Step) -> None:
        for k in np.flatnonzero(step.game_over):  # which can be at a step that resets, see EnvPoolEnv
            self.episodes.append(Episode(float(self._returns[k]), self._steps - int(self._not_played[k])))
            self._returns[k] = 0.0
            self._not_played[k] = self._steps


def random_states(env: VectorEnv, num_actions: int, seed: int, steps: int) -> NDArray[Any]:
    """The first that ``random_play`` gives."""
    return next(random_play(env, num_actions, seed, steps))


def random_play(env: VectorEnv, num_actions: int, seed: int, steps: int) -> Iterator[NDArray[Any]]:
    """Yields states of random play without end: what a game looks like before anything is learnt.

    Each array [N, ...] has the states of the next ``steps`` steps of all K environments, every fourth step's only:
    N = K * ceil(steps / 4).
    """
    draw = np.random.default_rng(seed)
    env.reset()
    while True:
        states = []
        for step in range(steps):
            played = env.step(draw.integers(0, num_actions, env.num_envs)).states
            if step % 4 == 0:  # neighbours share frames
                states.append(np.copy(played))
        yield np.concatenate(states)
