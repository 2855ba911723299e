"""Plays whole games with a trained policy and describes the scores."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ga3c.envs import Step, VectorEnv, env_seeds, env_spec, envs_in_one_process, make_env
from ga3c.errors import UsageError
from ga3c.eval_progress import Standing
from ga3c.policy import Policy, load_policy
from ga3c.statistics import human_normalised

MAX_ENVS = 16

Watch = Callable[[Standing], None]


class Game(NamedTuple):
    """One game that was played, up to the cut if it was cut.

    Fields:
      episode_return: sum of its unclipped rewards.
      length: in agent steps.
      env: index of the environment that played it.
      is_cut: whether it was ended by ``max_episode_steps``.
    """

    episode_return: float
    length: int
    env: int
    is_cut: bool


@dataclass(frozen=True)
class Evaluation:
    """Scores of whole games, unclipped.

    Attributes:
      checkpoint: the file that played.
      env_steps: agent steps it had been trained for.
      protocol: what was done to the game.
      greedy: the likeliest action, rather than a sample of the policy.
      returns: of each game.
      lengths: of each game, in agent steps.
      human_normalised: (mean - random) / (human - random) under no-op starts (Wang et al. 2015, arXiv:1511.06581,
        Table 2); None for what is no Atari game, or not in that table.
      max_episode_steps: agent steps after which a game was cut, or None.
      cut_in: for each game that was cut there, the index of its environment.
    """

    checkpoint: str
    env_steps: int
    protocol: str
    greedy: bool
    returns: list[float]
    lengths: list[int]
    human_normalised: float | None
    max_episode_steps: int | None = None
    cut_in: list[int] = field(default_factory=list)

    def summary(self) -> dict[str, float | int | None]:
        """Mean, standard deviation, median, minimum and maximum of the returns, and what else is told."""
        returns = np.array(self.returns)
        return {
            "episodes": len(returns),
            "mean": float(returns.mean()),
            "std": float(returns.std()),
            "median": float(np.median(returns)),
            "min": float(returns.min()),
            "max": float(returns.max()),
            "length_mean": float(np.mean(self.lengths)),
            "human_normalised": self.human_normalised,
            "cut": len(self.cut_in),
        }


def evaluate(
    path: str | PathLike[str],
    *,
    episodes: int = 30,
    greedy: bool = False,
    seed: int = 1000,
    device: str = "auto",
    max_episode_steps: int | None = None,
) -> Evaluation:
    """Plays ``episodes`` whole games, without reward clipping and without life-loss episodes.

    ``path`` is a checkpoint or a run's folder, whose newest one that is whole is taken. A game that has not ended after
    ``max_episode_steps`` agent steps is cut, and its return so far counts.

    Raises:
      UsageError: there is no such checkpoint, or it cannot be used.
    """
    policy = load_policy(Path(path), device=device, seed=seed)
    return evaluate_policy(policy, episodes=episodes, greedy=greedy, seed=seed, max_episode_steps=max_episode_steps)


def evaluate_policy(
    policy: Policy,
    *,
    episodes: int,
    greedy: bool,
    seed: int,
    max_episode_steps: int | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """As ``evaluate``, with a policy that is already loaded; ``seed`` is the seed of the games.

    ``watch`` is called with the ``Standing`` after every step; an exception that it raises ends the evaluation.

    Raises:
      UsageError: ``max_episode_steps`` is below 1, or the environment cannot be made.
    """
    if max_episode_steps is not None and max_episode_steps < 1:
        raise UsageError(f"--max-episode-steps: got {max_episode_steps}; expected at least 1")
    config = replace(
        policy.config.env_config(), reward_clip=False, episodic_life=False, max_episode_steps=max_episode_steps
    )
    spec = env_spec(config)
    num_envs = envs_in_one_process(config, min(MAX_ENVS, episodes), policy.config.envs_per_actor)
    env = make_env(config, env_seeds(seed, 0, 0, num_envs), threads=min(num_envs, len(os.sched_getaffinity(0))))
    try:
        games = play(policy, env, episodes, greedy=greedy, max_episode_steps=max_episode_steps, watch=watch)
    finally:
        env.close()
    returns = [game.episode_return for game in games]
    return Evaluation(
        checkpoint=str(policy.path),
        env_steps=policy.env_steps,
        protocol=spec.protocol,
        greedy=greedy,
        returns=returns,
        lengths=[game.length for game in games],
        human_normalised=human_normalised(spec.game, float(np.mean(returns))),
        max_episode_steps=max_episode_steps,
        cut_in=[game.env for game in games if game.is_cut],
    )


def play(
    policy: Policy,
    env: VectorEnv,
    episodes: int,
    *,
    greedy: bool,
    max_episode_steps: int | None = None,
    watch: Watch | None = None,
) -> list[Game]:
    """Plays a fixed share of the games in each environment, so that short games are not counted more often.

    Returns the games, ordered by environment and time.
    """
    account = _Account(env.num_envs, episodes, max_episode_steps)
    states = env.reset()
    while not account.is_complete:
        step = env.step(policy.act(states, greedy=greedy))
        account.add(step)
        states = step.states
        if watch is not None:
            watch(account.standing())
    return [game for column in account.games for game in column]


class _Account:
    """The games of K environments, those that have ended and those that are being played."""

    def __init__(self, num_envs: int, episodes: int, limit: int | None) -> None:
        """``limit``: agent steps after which a game counts as cut."""
        self.games: list[list[Game]] = [[] for _ in range(num_envs)]
        self._episodes = episodes
        self._quota = np.array([len(part) for part in np.array_split(np.arange(episodes), num_envs)])
        self._limit = limit
        self._returns, self._lengths = np.zeros(num_envs), np.zeros(num_envs, np.int64)
        self._live = np.ones(num_envs, np.bool_)
        # Environments whose game was counted at the limit and still goes on: some of EnvPool's take no limit.
        self._noted = np.zeros(num_envs, np.bool_)
        self._steps = self._done = 0

    @property
    def is_complete(self) -> bool:
        return self._done == self._episodes

    def add(self, step: Step) -> None:
        """Takes in one step of all environments."""
        self._returns += step.game_rewards
        self._lengths += self._live
        self._steps += int(self._live.sum())
        at_limit = self._lengths == (self._limit or -1)
        for k in np.flatnonzero(step.game_over | (at_limit & self._live)):
            if not self._noted[k] and len(self.games[k]) < self._quota[k]:
                is_cut = bool(at_limit[k] and not step.terminated[k])
                self.games[k].append(Game(float(self._returns[k]), int(self._lengths[k]), int(k), is_cut))
                self._done += 1
            self._noted[k] = not step.game_over[k]
            if step.game_over[k]:
                self._returns[k], self._lengths[k] = 0.0, 0
        self._live = ~((step.terminated | step.truncated) & self._live)

    def standing(self) -> Standing:
        """What there is to say of it now."""
        is_playing = [len(done) < wanted for done, wanted in zip(self.games, self._quota, strict=True)]
        return Standing(self._done, self._steps, np.where(is_playing, self._lengths, 0))
