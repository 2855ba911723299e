"""Gymnasium's environments, and the user's own, behind the same protocol."""

import importlib
import importlib.util
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from ga3c.envs.base import (
    ATARI_FPS,
    ATARI_MAX_EPISODE_STEPS,
    DEFAULT_FPS,
    EnvConfig,
    EnvError,
    EnvSpec,
    Step,
    any_of,
    atari_game,
    atari_protocol,
    check_autoreset,
    check_spaces,
    is_ale,
    meant_bounds,
    state_dtype,
    sticky_actions,
)
from ga3c.envs.envpool_backend import known_ids
from ga3c.errors import UsageError, nearest

_TOLERANCE = 1e-4
_LARGEST = float(np.finfo(np.float32).max)  # in which states and rewards are kept


class FireOnReset(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Presses FIRE at the start of a game that waits for it, as EnvPool does."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Resets, then presses FIRE if the game knows that button."""
        observation, info = self.env.reset(**kwargs)
        meanings = self.env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
        if "FIRE" in meanings:
            observation, _, terminated, truncated, info = self.env.step(meanings.index("FIRE"))
            if terminated or truncated:
                observation, info = self.env.reset(**kwargs)
        return observation, info


def _check_id(config: EnvConfig) -> None:
    """Finds the id in Gymnasium's registry, importing what registers it.

    Raises:
      UsageError: it is not there.
    """
    module, colon, name = config.id.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever the user's module does when it is imported
            raise UsageError(
                f"environment {config.id!r}: importing {module!r} gave {type(error).__name__}: {error};"
                " the part before ':' is a module that registers the environment"
            ) from None
    if is_ale(config):
        if importlib.util.find_spec("ale_py") is None or importlib.util.find_spec("cv2") is None:
            raise UsageError(
                f"environment {config.id!r} on Gymnasium needs ale-py and OpenCV: pip install 'ga3c[ale]',"
                " or leave --backend at auto to play it on EnvPool"
            )
        import ale_py

        gymnasium.register_envs(ale_py)
    if name in gymnasium.registry:
        return
    known = [*gymnasium.registry, *(known_ids() if config.backend == "auto" and not module else [])]
    where = "Gymnasium has no" if config.backend == "gymnasium" else "neither EnvPool nor Gymnasium has an"
    near = nearest(name, known) or "; one of your own would be module:Id, with the module that registers it"
    raise UsageError(f"{where} environment {config.id!r}{near}")


def _make_single(config: EnvConfig, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    # Environments need not know of a render mode.
    drawn: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    if not is_ale(config):
        return gymnasium.make(config.id, **drawn)
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    env = gymnasium.make(
        config.id,
        frameskip=1,
        repeat_action_probability=sticky_actions(config),
        max_num_frames_per_episode=ATARI_MAX_EPISODE_STEPS * config.frame_skip,
        **drawn,
    )
    env = AtariPreprocessing(env, noop_max=config.noop_max, frame_skip=config.frame_skip)
    if config.fire_on_reset:
        env = FireOnReset(env)
    return FrameStackObservation(env, config.frame_stack)


def _make_checked(config: EnvConfig, render_mode: str | None, index: int) -> gymnasium.Env[Any, Any]:
    try:
        return HeldToItsWord(_make_single(config, render_mode), index)
    except Exception as error:  # whatever the environment does when it is made
        raise EnvError(f"environment {index} cannot be made: {type(error).__name__}: {error}") from error


def spec(config: EnvConfig) -> EnvSpec:
    """See ``env_spec``; makes one environment to look at its spaces."""
    _check_id(config)
    if config.episodic_life:
        raise UsageError(f"--episodic-life needs --backend envpool and an Atari game, got {config.id!r} on Gymnasium")
    try:
        env = _make_single(config)
    except Exception as error:  # whatever the environment does when it is made
        raise UsageError(f"environment {config.id!r} cannot be made: {type(error).__name__}: {error}") from None
    try:
        space, num_actions = check_spaces(config.id, env.observation_space, env.action_space)
    finally:
        env.close()
    name = config.id.rpartition(":")[2]
    frames, game, protocol = 1, None, "none"
    if is_ale(config):
        frames, game, protocol = config.frame_skip, atari_game(name), atari_protocol(config, "Gymnasium")
    return EnvSpec(
        name, "gymnasium", space.shape, state_dtype(space), num_actions, frames, game, protocol, meant_bounds(space)
    )


class HeldToItsWord(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Turns what one environment raises, or returns against its own spaces, into a sentence that names it."""

    def __init__(self, env: gymnasium.Env[Any, Any], index: int) -> None:
        """``index`` is its name in the sentence."""
        super().__init__(env)
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
            state, info = self.env.reset(**kwargs)
        except Exception as error:
            raise EnvError(f"{self._name} raised {type(error).__name__} in reset: {error}") from error
        self._check(state)
        return state, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See ``gymnasium.Env``; raises ``EnvError``."""
        try:
            state, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise EnvError(f"{self._name} raised {type(error).__name__} in step: {error}") from error
        self._check(state)
        try:
            finite = abs(float(reward)) <= _LARGEST
        except (TypeError, ValueError, OverflowError):
            finite = False
        if not finite:
            raise EnvError(f"{self._name} returned the reward {reward!r}; a finite number would be right")
        return state, reward, terminated, truncated, info

    def _check(self, state: Any) -> None:
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
        render_mode = "rgb_array" if filmed else None
        self.num_envs = len(seeds)
        self._seeds: list[int | None] = [*seeds]
        self._clip = config.reward_clip and is_ale(config)
        self._env = gymnasium.vector.SyncVectorEnv(
            [partial(_make_checked, config, render_mode, index) for index in range(len(seeds))],
            autoreset_mode=AutoresetMode.NEXT_STEP,
            copy=False,
        )
        check_autoreset(config.id, self._env.metadata)
        says = self._env.envs[0].metadata.get("render_fps")
        usual = says if isinstance(says, int | float) and 1 <= says <= 1000 else DEFAULT_FPS
        self.fps = ATARI_FPS / config.frame_skip if is_ale(config) else float(usual)
        space = self._env.single_observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        self._dtype = state_dtype(space)

    def reset(self) -> NDArray[Any]:
        """See ``VectorEnv``."""
        states, _ = self._env.reset(seed=self._seeds)
        return np.asarray(states).astype(self._dtype, copy=False)

    def step(self, actions: NDArray[np.int64]) -> Step:
        """See ``VectorEnv``."""
        try:
            states, rewards, terminated, truncated, _ = self._env.step(actions)
        except EnvError:
            raise
        except Exception as error:  # Gymnasium could not put together what they returned
            raise EnvError(f"the environments' step raised {type(error).__name__}: {error}") from error
        game_rewards = np.asarray(rewards, np.float32)
        game_over = np.asarray(terminated | truncated)
        return Step(
            states=np.asarray(states).astype(self._dtype, copy=False),
            rewards=np.clip(game_rewards, -1, 1) if self._clip else game_rewards,
            terminated=np.asarray(terminated),
            truncated=np.asarray(truncated),
            game_rewards=game_rewards,
            game_over=game_over,
            any_ended=any_of(game_over),
        )

    def frame(self) -> NDArray[np.uint8]:
        """See ``FilmedEnv``."""
        try:
            picture = np.asarray(self._env.envs[0].render())
        except Exception as error:  # a library that draws is missing, or whatever the environment does
            raise EnvError(f"the environment cannot be drawn: {' '.join(str(error).split())}") from error
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise EnvError(f"the environment drew {picture.dtype} {picture.shape}; uint8 [H, W, 3] would be right")
        return picture

    def close(self) -> None:
        """See ``VectorEnv``."""
        self._env.close()
