"""Gymnasium's environments, and the user's own, behind the same protocol."""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from ga3c.envs.atari import AtariGame, find_game, make_game, register_games
from ga3c.envs.base import (
    ATARI_FPS,
    DEFAULT_FPS,
    EnvConfig,
    EnvError,
    EnvSpec,
    Step,
    any_of,
    atari_protocol,
    check_autoreset,
    check_spaces,
    meant_bounds,
    state_dtype,
)
from ga3c.envs.envpool_backend import known_ids
from ga3c.errors import UsageError, nearest
from ga3c.user_code import USER_ERRORS, contained, end_if_forked, import_module, in_worker, was_cut_short

T = TypeVar("T")

_TOLERANCE = 1e-4
_LARGEST = float(np.finfo(np.float32).max)  # in which states and rewards are kept


def _check_id(config: EnvConfig) -> None:
    """Finds the id in Gymnasium's registry, importing what registers it.

    Raises:
      UsageError: it is not there.
    """
    module, colon, name = config.id.rpartition(":")
    if colon:
        try:
            import_module(module)
        except USER_ERRORS as error:
            raise UsageError(
                f"environment {config.id!r}: importing {module!r} gave {type(error).__name__}: {error};"
                " expected a module before ':' that registers the environment"
            ) from None
    if name not in gymnasium.registry:
        register_games(config)
    if name in gymnasium.registry:
        return
    known = [*gymnasium.registry, *(known_ids() if config.backend == "auto" and not module else [])]
    where = "Gymnasium has no" if config.backend == "gymnasium" else "neither EnvPool nor Gymnasium has an"
    near = nearest(name, known) or "; one of your own would be module:Id, with the module that registers it"
    if module and was_cut_short(module):
        near = (
            f"; module {module!r} begins a run while it is imported, and the rest of it was left out: expected the"
            ' environment to be registered before that, or the run under `if __name__ == "__main__":`'
        )
    elif in_worker():
        near = (
            "; it is known to the program that trains, but not to its workers: expected module:Id, with a module that"
            " registers it when it is imported"
        )
    raise UsageError(f"{where} environment {config.id!r}{near}")


def _make_single(config: EnvConfig, game: AtariGame | None, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    # Environments need not know of a render mode.
    drawn: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    env = gymnasium.make(config.id, **drawn) if game is None else make_game(config, game, **drawn)
    if config.max_episode_steps is None:
        return env
    return gymnasium.wrappers.TimeLimit(env, config.max_episode_steps)


def _make_checked(
    config: EnvConfig, game: AtariGame | None, render_mode: str | None, index: int, undo: ExitStack
) -> gymnasium.Env[Any, Any]:
    try:
        with contained():
            env = HeldToItsWord(_make_single(config, game, render_mode), index)
    except USER_ERRORS as error:
        raise EnvError(f"environment {index} cannot be made: {type(error).__name__}: {error}") from error
    undo.callback(env.close)
    return env


def _close(env: gymnasium.Env[Any, Any]) -> None:
    try:
        with contained():
            env.close()
    except USER_ERRORS as error:
        with suppress(Exception):  # nobody listens
            print(f"ga3c: {env} raised {type(error).__name__} in close: {error}", file=sys.stderr, flush=True)


def spec(config: EnvConfig) -> EnvSpec:
    """See ``env_spec``; makes one environment to look at its spaces."""
    _check_id(config)
    game = find_game(config)
    if config.episodic_life:
        raise UsageError(f"--episodic-life needs --backend envpool and an Atari game, got {config.id!r} on Gymnasium")
    try:
        with contained():
            env = _make_single(config, game)
    except USER_ERRORS as error:
        raise UsageError(f"environment {config.id!r} cannot be made: {type(error).__name__}: {error}") from None
    try:
        space, num_actions = check_spaces(config.id, env.observation_space, env.action_space)
    finally:
        _close(env)
    name = config.id.rpartition(":")[2]
    frames, title, protocol = 1, None, "none"
    if game is not None:
        frames, title = config.frame_skip, game.game
        protocol = atari_protocol(config, "Gymnasium", game.sticky_actions)
    return EnvSpec(
        name, "gymnasium", space.shape, state_dtype(space), num_actions, frames, title, protocol, meant_bounds(space)
    )


class HeldToItsWord(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Turns what one environment raises, or returns against its own spaces, into a sentence that names it.

    ``info`` is dropped: nothing here reads it, and Gymnasium cannot put every two of them together.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], index: int) -> None:
        """``index`` is its name in the sentence."""
        super().__init__(env)
        self._closed = False
        self._name = f"environment {index}"
        space = env.observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        self._space = space
        # A rounding error beyond a bound harms nobody.
        self._low = space.low - _TOLERANCE * np.maximum(1, np.abs(space.low))
        self._high = space.high + _TOLERANCE * np.maximum(1, np.abs(space.high))

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """See ``gymnasium.Env``; raises ``EnvError``."""
        try:
            state, _ = self.env.reset(**kwargs)
        except USER_ERRORS as error:
            raise EnvError(f"{self._name} raised {type(error).__name__} in reset: {error}") from error
        self._check(state)
        return state, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See ``gymnasium.Env``; raises ``EnvError``."""
        try:
            state, reward, terminated, truncated, _ = self.env.step(action)
        except USER_ERRORS as error:
            raise EnvError(f"{self._name} raised {type(error).__name__} in step: {error}") from error
        self._check(state)
        try:
            finite = abs(float(reward)) <= _LARGEST
        except (TypeError, ValueError, OverflowError):
            finite = False
        if not finite:
            raise EnvError(f"{self._name} returned the reward {reward!r}; a finite number would be right")
        return state, reward, terminated, truncated, {}

    def close(self) -> None:
        """Closes the environment, once; what that raises is printed, since nothing is left to be lost."""
        if not self._closed:
            self._closed = True
            _close(self.env)

    def _check(self, state: Any) -> None:
        with np.errstate(all="ignore"):  # the environment may have asked numpy to raise
            self._check_values(state)

    def _check_values(self, state: Any) -> None:
        space = self._space
        try:
            state = np.asarray(state)
        except ValueError as error:
            raise EnvError(f"{self._name} returned a state that is no array: {error}") from error
        if state.shape != space.shape:
            raise EnvError(f"{self._name} returned a state of shape {state.shape}; {space.shape} would be right")
        if not np.can_cast(state.dtype, space.dtype, "same_kind"):
            raise EnvError(f"{self._name} returned a state of {state.dtype}; {space.dtype} would be right")
        if not (np.abs(state) <= _LARGEST).all():
            raise EnvError(f"{self._name} returned a state that is not finite: {state}")
        wrong = (state < self._low) | (state > self._high)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise EnvError(
                f"{self._name} returned a state with {state[at]} at {at};"
                f" {space.low[at]} to {space.high[at]} would be right"
            )


class GymnasiumEnv:
    """Gymnasium's environments, stepped one after the other in this process."""

    def __init__(self, config: EnvConfig, seeds: list[int], *, filmed: bool = False) -> None:
        """``filmed``: as ``FilmedEnv``."""
        _check_id(config)
        game = find_game(config)
        render_mode = "rgb_array" if filmed else None
        self.num_envs = len(seeds)
        self._seeds: list[int | None] = [*seeds]
        self._clip = config.reward_clip and game is not None
        self._process = os.getpid()
        with ExitStack() as undo:  # closes those that were made, where a later one fails
            self._env = gymnasium.vector.SyncVectorEnv(
                [partial(_make_checked, config, game, render_mode, index, undo) for index in range(len(seeds))],
                autoreset_mode=AutoresetMode.NEXT_STEP,
                copy=False,
            )
            check_autoreset(config.id, self._env.metadata)
            undo.pop_all()
        says = self._env.envs[0].metadata.get("render_fps")
        usual = says if isinstance(says, int | float) and 1 <= says <= 1000 else DEFAULT_FPS
        self.fps = ATARI_FPS / config.frame_skip if game is not None else float(usual)
        space = self._env.single_observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        self._dtype = state_dtype(space)

    def reset(self) -> NDArray[Any]:
        """See ``VectorEnv``."""
        states, _ = self._answer("reset", partial(self._env.reset, seed=self._seeds))
        return self._as_kept(states)

    def step(self, actions: NDArray[np.int64]) -> Step:
        """See ``VectorEnv``."""
        states, rewards, terminated, truncated, _ = self._answer("step", partial(self._env.step, actions))
        game_rewards = self._as_kept(rewards, "float32")
        game_over = np.asarray(terminated | truncated)
        return Step(
            states=self._as_kept(states),
            rewards=np.clip(game_rewards, -1, 1) if self._clip else game_rewards,
            terminated=np.asarray(terminated),
            truncated=np.asarray(truncated),
            game_rewards=game_rewards,
            game_over=game_over,
            any_ended=any_of(game_over),
        )

    def _answer(self, doing: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except EnvError:
            raise
        except USER_ERRORS as error:  # Gymnasium could not put together what they returned
            raise EnvError(f"the environments raised {type(error).__name__} in {doing}: {error}") from error
        finally:
            end_if_forked(self._process)

    def _as_kept(self, values: Any, dtype: str | None = None) -> NDArray[Any]:
        """Of the type that the slabs have, whatever error state an environment has left in numpy."""
        with np.errstate(all="ignore"):
            return np.asarray(values).astype(dtype or self._dtype, copy=False)

    def frame(self) -> NDArray[np.uint8]:
        """See ``FilmedEnv``."""
        try:
            picture = np.asarray(self._env.envs[0].render())
        except USER_ERRORS as error:  # a library that draws is missing, or whatever the environment does
            raise EnvError(f"the environment cannot be drawn: {' '.join(str(error).split())}") from error
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise EnvError(f"the environment drew {picture.dtype} {picture.shape}; uint8 [H, W, 3] would be right")
        return picture

    def close(self) -> None:
        """See ``VectorEnv``."""
        self._env.close()
