"""Plays whole games with a trained policy and describes the scores."""

import os
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from ga3c.envs import VectorEnv, env_seeds, env_spec, make_env
from ga3c.policy import Policy, load_policy
from ga3c.statistics import human_normalised

MAX_ENVS = 16


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
    """

    checkpoint: str
    env_steps: int
    protocol: str
    greedy: bool
    returns: list[float]
    lengths: list[int]
    human_normalised: float | None

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
        }


def evaluate(
    path: str | PathLike[str],
    *,
    episodes: int = 30,
    greedy: bool = False,
    seed: int = 1000,
    device: str = "auto",
) -> Evaluation:
    """Plays ``episodes`` whole games, without reward clipping and without life-loss episodes.

    ``path`` is a checkpoint or a run's folder, whose newest one that is whole is taken.

    Raises:
      UsageError: there is no such checkpoint, or it cannot be used.
    """
    policy = load_policy(Path(path), device=device, seed=seed)
    return evaluate_policy(policy, episodes=episodes, greedy=greedy, seed=seed)


def evaluate_policy(policy: Policy, *, episodes: int, greedy: bool, seed: int) -> Evaluation:
    """As ``evaluate``, with a policy that is loaded; ``seed`` is of the games."""
    config = replace(policy.config.env_config(), reward_clip=False, episodic_life=False)
    spec = env_spec(config)
    num_envs = min(MAX_ENVS, episodes)
    env = make_env(config, env_seeds(seed, 0, 0, num_envs), threads=min(num_envs, len(os.sched_getaffinity(0))))
    try:
        returns, lengths = play(policy, env, episodes, greedy=greedy)
    finally:
        env.close()
    return Evaluation(
        checkpoint=str(policy.path),
        env_steps=policy.env_steps,
        protocol=spec.protocol,
        greedy=greedy,
        returns=returns,
        lengths=lengths,
        human_normalised=human_normalised(spec.game, float(np.mean(returns))),
    )


def play(policy: Policy, env: VectorEnv, episodes: int, *, greedy: bool) -> tuple[list[float], list[int]]:
    """Plays a fixed share of the games in each environment, so that short games are not counted more often.

    Returns the returns and the lengths in agent steps, ordered by environment and time.
    """
    quota = np.array([len(part) for part in np.array_split(np.arange(episodes), env.num_envs)])
    games: list[list[tuple[float, int]]] = [[] for _ in range(env.num_envs)]
    game_return, length = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
    live = np.ones(env.num_envs, np.bool_)
    states = env.reset()
    while any(len(done) < wanted for done, wanted in zip(games, quota, strict=True)):
        step = env.step(policy.act(states, greedy=greedy))
        game_return += step.game_rewards
        length += live
        for k in np.flatnonzero(step.game_over):
            if len(games[k]) < quota[k]:
                games[k].append((float(game_return[k]), int(length[k])))
            game_return[k], length[k] = 0.0, 0
        live = ~((step.terminated | step.truncated) & live)
        states = step.states
    played = [game for column in games for game in column]
    return [r for r, _ in played], [n for _, n in played]
