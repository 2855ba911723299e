"""The environments behind Gymnasium's own vector interface, for programs that play with a policy."""

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from ga3c.envs import EnvConfig, Player, VectorEnv, env_seeds, env_spec, make_env
from ga3c.errors import UsageError


class GymVectorEnv(gymnasium.vector.VectorEnv[NDArray[Any], ArrayLike, NDArray[Any]]):
    """N games with the treatment that they get in training.

    The step after an episode's end only resets: its action is ignored and its reward is 0. ``infos`` has
    ``game_reward`` [N] float32, never clipped; ``game_over`` [N] bool, whether a whole game ended, which a lost life is
    not; and where one did, ``game`` with the returns ``r`` and lengths ``l`` of those games, and the mask ``_game``.
    (``episode`` is what Gymnasium's ``RecordEpisodeStatistics`` adds, of clipped rewards.)
    """

    def __init__(self, config: EnvConfig, num_envs: int, seed: int) -> None:
        """See ``ga3c.make_vec``."""
        spec = env_spec(config)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs = num_envs
        if spec.observation_dtype == "uint8":
            self.single_observation_space = Box(0, 255, spec.observation_shape, np.uint8)
        else:
            self.single_observation_space = Box(-np.inf, np.inf, spec.observation_shape, np.float32)
        self._most = spec.num_actions - 1
        self.single_action_space = Discrete(spec.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._config = config
        self._seed, self._starts = seed, 0
        self._env: VectorEnv | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts N games, the same ones after the same seed and number of resets; ``options`` are ignored."""
        super().reset(seed=seed)
        if seed is not None:
            self._seed, self._starts = seed, 0
        self.close_extras()
        seeds = env_seeds(self._seed, 0, self._starts, self.num_envs)
        self._env = make_env(self._config, seeds, threads=min(self.num_envs, len(os.sched_getaffinity(0))))
        self._player = Player(self._env)
        self._starts += 1
        return np.copy(self._player.states), {}

    def step(self, actions: ArrayLike) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Takes an action [N] in each game.

        Raises:
          UsageError: those are no N actions, or ``reset`` has not been called.
          EnvError: a game failed.
        """
        actions = np.asarray(actions)
        fit = actions.shape == (self.num_envs,) and actions.dtype.kind in "iu"
        if not (fit and 0 <= actions.min() <= actions.max() <= self._most):
            raise UsageError(f"got actions {actions!r}; {self.num_envs} integers from 0 to {self._most} would be right")
        if self._env is None:
            raise UsageError("step was called before reset; reset would be right")
        step = self._player.step(actions.astype(np.int64))
        infos: dict[str, Any] = {"game_reward": np.copy(step.game_rewards), "game_over": np.copy(step.game_over)}
        if step.game_over.any():
            returns, lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
            # The player notes games in the order of their environments.
            games = zip(np.flatnonzero(step.game_over), self._player.episodes, strict=True)
            for k, game in games:
                returns[k], lengths[k] = game.episode_return, game.length
            self._player.episodes.clear()
            infos |= {"game": {"r": returns, "l": lengths}, "_game": infos["game_over"]}
        return np.copy(step.states), np.copy(step.rewards), step.terminated, step.truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the games; called by ``close``."""
        if self._env is not None:
            self._env.close()
            self._env = None
