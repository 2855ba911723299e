"""Environments: EnvPool and Gymnasium behind one small protocol. No torch here: actors live in this room.

Both backends reset on the step after an episode's end (``AutoresetMode.NEXT_STEP``); that step's reward is 0 and its
action is ignored. Whoever steps an environment has to leave it out of what it learns (see ``returns``).
"""

import difflib
import importlib
import importlib.util
import re
import warnings
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from ga3c.errors import UsageError

Backend = Literal["auto", "envpool", "gymnasium"]

ALE_STICKY_ACTIONS = 0.25  # what ALE/<game>-v5 means (Machado et al. 2018)
ATARI_MAX_EPISODE_STEPS = 27_000  # agent steps: 108,000 frames, half an hour of play


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, and the treatment that Atari games get.

    Attributes:
      id: EnvPool's or Gymnasium's; ``module:Id`` imports the module first.
      backend: ``auto`` takes EnvPool where it has the id.
      frame_skip: frames an action is repeated for; an agent step is that many frames.
      frame_stack: grey 84x84 frames in a state.
      noop_max: no-op actions at the start of a game, at most.
      fire_on_reset: press FIRE at the start of a game that has it.
      sticky_actions: probability that the last action is repeated instead of the one given; None is 0.25 for an
        ``ALE/`` id, as that id means, and 0 for any other.
      reward_clip: clip training rewards to [-1, 1]; scores never are.
      episodic_life: a lost life ends an episode for learning; scores are those of whole games.
    """

    id: str
    backend: Backend = "auto"
    frame_skip: int = 4
    frame_stack: int = 4
    noop_max: int = 30
    fire_on_reset: bool = True
    sticky_actions: float | None = None
    reward_clip: bool = True
    episodic_life: bool = False


@dataclass(frozen=True)
class EnvSpec:
    """What a learner has to know of an environment.

    Attributes:
      id: the id that the backend knows.
      backend: ``envpool`` or ``gymnasium``.
      observation_shape: shape of one state.
      observation_dtype: ``uint8`` or ``float32``, the type states have in the slabs.
      num_actions: size of the discrete action space.
      frames_per_step: emulator frames an agent step takes; 1 for all but Atari.
      game: the Atari game in lower case, as in ``qbert``; None for anything else.
      protocol: in words, what is done to the game.
    """

    id: str
    backend: str
    observation_shape: tuple[int, ...]
    observation_dtype: str
    num_actions: int
    frames_per_step: int
    game: str | None
    protocol: str


class Step(NamedTuple):
    """What one step of K environments gave.

    Fields:
      states: [K, ...] s_{t+1}; after an episode's end its final state.
      rewards: [K] float32, for training; clipped if so configured, 0 on a step that resets.
      terminated: [K] bool, the episode ended in a terminal state.
      truncated: [K] bool, the episode was cut.
      game_rewards: [K] float32, unclipped.
      game_over: [K] bool, a whole game ended here, which a lost life is not.
    """

    states: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    game_rewards: NDArray[np.float32]
    game_over: NDArray[np.bool_]


class VectorEnv(Protocol):
    """K environments stepped together."""

    num_envs: int

    def reset(self) -> NDArray[Any]:
        """Starts K episodes and returns their first states, [K, ...]. Called once, first."""

    def step(self, actions: NDArray[np.int64]) -> Step:
        """Steps every environment; ``actions`` is [K]. The result's arrays are valid until the next call."""

    def close(self) -> None:
        """Frees what the environments hold."""


def env_spec(config: EnvConfig) -> EnvSpec:
    """Looks the environment up, without making more of it than that needs.

    Raises:
      UsageError: it does not exist, or its spaces are not supported.
    """
    name = _envpool_name(config)
    return _envpool_spec(config, name) if name else _gymnasium_spec(config)


def make_env(config: EnvConfig, num_envs: int, seeds: list[int]) -> VectorEnv:
    """Makes K environments, the k-th seeded with ``seeds[k]``.

    Raises:
      UsageError: as ``env_spec``.
    """
    name = _envpool_name(config)
    return _EnvPool(config, name, seeds) if name else _Gymnasium(config, num_envs, seeds)


def env_seeds(seed: int, actor: int, generation: int, num_envs: int) -> list[int]:
    """K seeds for the environments of one actor.

    EnvPool gives environment i ``seed + i``, so that neighbouring seeds share games. These are hashed instead, from the
    run's seed, the actor's index and how often that actor has been started.
    """
    sequence = np.random.SeedSequence((seed, actor, generation))
    return [int(word) & 0x7FFFFFFF for word in sequence.generate_state(num_envs)]


def nearest(name: str, known: list[str]) -> str:
    """A half-sentence with the names most like ``name``, or an empty string."""
    lower = {k.lower(): k for k in known}
    close = [lower[m] for m in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    return f"; nearest: {', '.join(close)}" if close else ""


# EnvPool


def _envpool_ids() -> list[str]:
    import envpool

    ids: list[str] = envpool.list_all_envs()
    return ids


def _envpool_name(config: EnvConfig) -> str | None:
    """EnvPool's name of the environment, or None if Gymnasium is to make it."""
    if config.backend == "gymnasium":
        return None
    name = config.id.removeprefix("ALE/")
    known = _envpool_ids()
    if ":" not in name and name in known:
        return name
    if config.backend == "envpool":
        raise UsageError(f"EnvPool has no environment {config.id!r}{nearest(name, known)}")
    return None


def _sticky_actions(config: EnvConfig) -> float:
    if config.sticky_actions is not None:
        return config.sticky_actions
    return ALE_STICKY_ACTIONS if _is_ale(config) else 0.0


def _envpool_settings(config: EnvConfig, name: str) -> dict[str, Any]:
    import envpool

    spec = envpool.make_spec(name)
    if "noop_max" not in spec.config._fields:
        return {}
    return {
        "frame_skip": config.frame_skip,
        "stack_num": config.frame_stack,
        # EnvPool plays 0 to noop_max - 1 no-ops and FIRE, or 1 to noop_max where FIRE is off; 0 makes it crash.
        "noop_max": max(1, config.noop_max),
        "use_fire_reset": config.fire_on_reset,
        "repeat_action_probability": _sticky_actions(config),
        "reward_clip": config.reward_clip,
        "episodic_life": config.episodic_life,
        "max_episode_steps": ATARI_MAX_EPISODE_STEPS,
    }


def _envpool_spec(config: EnvConfig, name: str) -> EnvSpec:
    import envpool

    settings = _envpool_settings(config, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium on float64 bounds: of no use to whoever trains
        spec = envpool.make_spec(name, **settings)
        observations, actions = spec.gymnasium_observation_space, spec.gymnasium_action_space
    shape, dtype, num_actions = _check_spaces(config.id, observations, actions)
    protocol = _protocol(config, "EnvPool") if settings else "none"
    frames = config.frame_skip if settings else 1
    game = str(spec.config.task) if settings else None
    return EnvSpec(name, "envpool", shape, dtype, num_actions, frames, game, protocol)


class _EnvPool:
    """EnvPool's environments, on one thread: the other cores belong to the other actors."""

    def __init__(self, config: EnvConfig, name: str, seeds: list[int]) -> None:
        import envpool

        self.num_envs = len(seeds)
        settings = _envpool_settings(config, name)
        make: Any = envpool.make_gymnasium  # its stubs know less than it does
        self._env = make(name, num_envs=len(seeds), num_threads=1, env_seed=seeds, seed=seeds[0], **settings)
        _check_autoreset(config.id, self._env.metadata)
        self._dtype = env_spec(config).observation_dtype
        self._atari = bool(settings)
        self._lives = np.zeros(len(seeds), np.int32)
        self._game_over = np.ones(len(seeds), np.bool_)

    def reset(self) -> NDArray[Any]:
        states, info = self._env.reset()
        if self._atari:
            self._lives = info["lives"]
        return np.asarray(states).astype(self._dtype, copy=False)

    def step(self, actions: NDArray[np.int64]) -> Step:
        states, rewards, terminated, truncated, info = self._env.step(actions)
        rewards = rewards.astype(np.float32, copy=False)
        game_rewards, game_over = rewards, terminated | truncated
        if self._atari:
            game_rewards = info["reward"]
            # After a lost life EnvPool plays no-ops; a game that ends in them is started anew without a word, but
            # for the lives, which rise.
            risen = (info["lives"] > self._lives) & ~self._game_over
            game_over = (info["terminated"] != 0) | truncated | risen
            self._lives = info["lives"]
        self._game_over = game_over
        return Step(states.astype(self._dtype, copy=False), rewards, terminated, truncated, game_rewards, game_over)

    def close(self) -> None:
        self._env.close()


# Gymnasium


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


def _is_ale(config: EnvConfig) -> bool:
    return config.id.startswith("ALE/")


def _check_gymnasium_id(config: EnvConfig) -> None:
    """Finds the id in Gymnasium's registry, importing what registers it.

    Raises:
      UsageError: it is not there.
    """
    module, _, name = config.id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"environment {config.id!r}: no module named {error.name!r} can be imported;"
                " the part before ':' is a module that registers the environment"
            ) from None
    if _is_ale(config):
        if importlib.util.find_spec("ale_py") is None or importlib.util.find_spec("cv2") is None:
            raise UsageError(
                f"environment {config.id!r} on Gymnasium needs ale-py and OpenCV: pip install 'ga3c[ale]',"
                " or leave --backend at auto to play it on EnvPool"
            )
        import ale_py

        gymnasium.register_envs(ale_py)
    if name in gymnasium.registry:
        return
    known = list(gymnasium.registry) + (_envpool_ids() if config.backend == "auto" and not module else [])
    where = "Gymnasium has" if config.backend == "gymnasium" else "neither EnvPool nor Gymnasium has"
    raise UsageError(f"{where} an environment {config.id!r}{nearest(name, known)}")


def _make_single(config: EnvConfig) -> gymnasium.Env[Any, Any]:
    if not _is_ale(config):
        return gymnasium.make(config.id)
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    env = gymnasium.make(
        config.id,
        frameskip=1,
        repeat_action_probability=_sticky_actions(config),
        max_num_frames_per_episode=ATARI_MAX_EPISODE_STEPS * config.frame_skip,
    )
    env = AtariPreprocessing(env, noop_max=config.noop_max, frame_skip=config.frame_skip)
    if config.fire_on_reset:
        env = FireOnReset(env)
    return FrameStackObservation(env, config.frame_stack)


def _gymnasium_spec(config: EnvConfig) -> EnvSpec:
    _check_gymnasium_id(config)
    if config.episodic_life:
        raise UsageError(f"--episodic-life needs --backend envpool and an Atari game, got {config.id!r} on Gymnasium")
    env = _make_single(config)
    try:
        shape, dtype, num_actions = _check_spaces(config.id, env.observation_space, env.action_space)
    finally:
        env.close()
    name = config.id.rpartition(":")[2]
    if not _is_ale(config):
        return EnvSpec(name, "gymnasium", shape, dtype, num_actions, 1, None, "none")
    game = re.sub(r"(?<!^)(?=[A-Z])", "_", name.removeprefix("ALE/").partition("-")[0]).lower()
    protocol = _protocol(config, "Gymnasium")
    return EnvSpec(name, "gymnasium", shape, dtype, num_actions, config.frame_skip, game, protocol)


class _Gymnasium:
    """Gymnasium's environments, stepped one after the other in this process."""

    def __init__(self, config: EnvConfig, num_envs: int, seeds: list[int]) -> None:
        _check_gymnasium_id(config)
        self.num_envs = num_envs
        self._seeds: list[int | None] = [*seeds]
        self._clip = config.reward_clip and _is_ale(config)
        self._env = gymnasium.vector.SyncVectorEnv(
            [lambda: _make_single(config)] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP, copy=False
        )
        _check_autoreset(config.id, self._env.metadata)
        space = self._env.single_observation_space
        self._dtype = "uint8" if space.dtype == np.uint8 else "float32"

    def reset(self) -> NDArray[Any]:
        states, _ = self._env.reset(seed=self._seeds)
        return np.asarray(states).astype(self._dtype, copy=False)

    def step(self, actions: NDArray[np.int64]) -> Step:
        states, rewards, terminated, truncated, _ = self._env.step(actions)
        game_rewards = np.asarray(rewards, np.float32)
        return Step(
            states=np.asarray(states).astype(self._dtype, copy=False),
            rewards=np.clip(game_rewards, -1, 1) if self._clip else game_rewards,
            terminated=np.asarray(terminated),
            truncated=np.asarray(truncated),
            game_rewards=game_rewards,
            game_over=np.asarray(terminated | truncated),
        )

    def close(self) -> None:
        self._env.close()


# Both


def _check_autoreset(env_id: str, metadata: dict[str, Any]) -> None:
    mode = metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        raise UsageError(
            f"environment {env_id!r} says autoreset mode {mode!r}; only {AutoresetMode.NEXT_STEP} is handled"
        )


def _check_spaces(env_id: str, observations: object, actions: object) -> tuple[tuple[int, ...], str, int]:
    """Returns (shape of a state, its dtype in a slab, number of actions)."""
    if not isinstance(observations, Box):
        raise UsageError(f"environment {env_id!r} has observations {observations}; a Box is needed")
    if not isinstance(actions, Discrete):
        raise UsageError(f"environment {env_id!r} has actions {actions}; Discrete actions are needed")
    if actions.start != 0:
        raise UsageError(f"environment {env_id!r} counts its actions from {actions.start}; 0 is needed")
    dtype = "uint8" if observations.dtype == np.uint8 else "float32"
    return tuple(observations.shape), dtype, int(actions.n)


def _protocol(config: EnvConfig, backend: str) -> str:
    if backend == "EnvPool":
        noops = max(1, config.noop_max)
        starts = f"0 to {noops - 1} no-ops" if config.fire_on_reset else f"1 to {noops} no-ops"
    else:
        starts = f"1 to {config.noop_max} no-ops" if config.noop_max else "no no-ops"
    if config.fire_on_reset:
        starts += ", then FIRE"
    return "; ".join(
        [
            f"{backend}, frame skip {config.frame_skip}, {config.frame_stack} grey 84x84 frames",
            f"{starts} at the start",
            f"sticky actions {_sticky_actions(config):g}",
            f"training rewards {'clipped to [-1, 1]' if config.reward_clip else 'not clipped'}",
            f"a lost life {'ends' if config.episodic_life else 'does not end'} an episode",
            f"a game is cut after {ATARI_MAX_EPISODE_STEPS} steps",
        ]
    )
