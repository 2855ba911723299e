"""What an environment is to the rest of the package: its configuration, its specification, and how it is stepped."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from ga3c.errors import UsageError
from ga3c.pictures import is_picture

Backend = Literal["auto", "envpool", "gymnasium"]

ALE_STICKY_ACTIONS = 0.25  # what ALE/<game>-v5 means (Machado et al. 2018)
ATARI_FPS = 60.0  # frames a second of the console
DEFAULT_FPS = 30.0  # as Gymnasium's own recorder takes where an environment says nothing
ATARI_MAX_EPISODE_STEPS = 27_000  # agent steps: 108,000 frames, half an hour of play
# A space's bounds are ignored if the size of one is outside of these and not 0: infinity, the limits of float32 and
# float64 (EnvPool has 1.2e-38, 3.4e38 and 1.8e308) and those of int32 all stand for "unknown".
_LEAST_BOUND, _LARGEST_BOUND = 1e-6, 1e6


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
      sticky_actions: probability that the last action is repeated instead of the one given; None is what the id means:
        0.25 for an ``ALE/`` id, what ale-py has registered for another of its ids, and 0 for an id of EnvPool's.
      reward_clip: clip training rewards to [-1, 1]; scores never are.
      episodic_life: a lost life ends an episode for learning; scores are those of whole games.
      max_episode_steps: agent steps after which an episode is cut; None leaves that to the environment.
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
    max_episode_steps: int | None = None


class Bounds(NamedTuple):
    """Lower and upper bounds of an observation, element by element; each has its shape, and the type of the slabs."""

    low: NDArray[Any]
    high: NDArray[Any]


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
      bounds: of the observation space; None if any of them is infinite or absurd: see ``meant_bounds``.
      channels_last: whether pictures have their channels last; None decides it by the shape: see ``picture_in``.
    """

    id: str
    backend: str
    observation_shape: tuple[int, ...]
    observation_dtype: str
    num_actions: int
    frames_per_step: int
    game: str | None
    protocol: str
    bounds: Bounds | None = field(default=None, compare=False)
    channels_last: bool | None = None

    @property
    def is_image(self) -> bool:
        """Whether states are pictures, large enough for the package's convolutional networks."""
        return is_picture(self.observation_shape)


class Step(NamedTuple):
    """What one step of K environments gave.

    Fields:
      states: [K, ...] s_{t+1}; after an episode's end its final state.
      rewards: [K] float32, for training; clipped if so configured, 0 on a step that resets.
      terminated: [K] bool, the episode ended in a terminal state.
      truncated: [K] bool, the episode was cut.
      game_rewards: [K] float32, unclipped.
      game_over: [K] bool, a whole game ended here, with the episode or at a step that resets; a lost life is no end.
      any_ended: False where no flag above is set, as nearly always: to look at each would take an actor a while.
    """

    states: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    game_rewards: NDArray[np.float32]
    game_over: NDArray[np.bool_]
    any_ended: bool


class EnvError(RuntimeError):
    """An environment failed or returned what it must not; the message is a sentence that names it."""


def check_finite(name: str, values: NDArray[Any]) -> None:
    """Refuses what cannot be learnt from.

    Args:
      name: what ``values`` are, in the singular.
      values: [K, ...] of K environments.

    Raises:
      EnvError: one of them is infinite or not a number.
    """
    finite = np.isfinite(values)
    if not finite.all():
        k = int(np.argmin(finite.reshape(len(values), -1).all(axis=1)))
        raise EnvError(f"environment {k} returned a {name} that is not finite: {values[k]}")


def any_of(flags: NDArray[np.bool_]) -> bool:
    """``flags.any()`` without the Python in it, which takes ten times as long as a few flags do."""
    return b"\1" in flags.tobytes()


class VectorEnv(Protocol):
    """K environments stepped together."""

    num_envs: int

    def reset(self) -> NDArray[Any]:
        """Starts K episodes and returns their first states, [K, ...]. Called once, first."""

    def step(self, actions: NDArray[np.int64]) -> Step:
        """Steps every environment; ``actions`` is [K]. The result's arrays are valid until the next call.

        Raises:
          EnvError: one of them failed.
        """

    def close(self) -> None:
        """Frees what the environments hold."""


class FilmedEnv(VectorEnv, Protocol):
    """One environment (K is 1) that can be looked at. It plays the games that it plays unfilmed.

    Attributes:
      fps: agent steps a second at which the game is meant to be played.
    """

    fps: float

    def frame(self) -> NDArray[np.uint8]:
        """The present picture in the environment's own colours and size, [H, W, 3].

        Raises:
          EnvError: the environment cannot draw itself.
        """


def is_ale(config: EnvConfig) -> bool:
    """Whether the id is of the form that only the Arcade Learning Environment has."""
    return config.id.rpartition(":")[2].startswith("ALE/")


def atari_game(env_id: str) -> str:
    """The game in lower case, as in ``ms_pacman`` for ``ALE/MsPacman-v5``; the id must be one of an Atari game."""
    name = env_id.rpartition(":")[2].removeprefix("ALE/").partition("-")[0].removesuffix("NoFrameskip")
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def sticky_actions(config: EnvConfig, of_id: float) -> float:
    """The probability that was asked for, else what the id means."""
    return of_id if config.sticky_actions is None else config.sticky_actions


def atari_limit(config: EnvConfig) -> int:
    """Agent steps after which a game is cut."""
    return min(ATARI_MAX_EPISODE_STEPS, config.max_episode_steps or ATARI_MAX_EPISODE_STEPS)


def check_autoreset(env_id: str, metadata: dict[str, Any]) -> None:
    """Refuses what does not reset on the step after an episode's end.

    Raises:
      UsageError: with the mode that the environment says.
    """
    mode = metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        raise UsageError(
            f"environment {env_id!r} says autoreset mode {mode!r}; only {AutoresetMode.NEXT_STEP} is handled"
        )


def check_spaces(env_id: str, observations: object, actions: object) -> tuple[Box, int]:
    """Returns the space of observations and the number of actions.

    Raises:
      UsageError: the spaces are not supported.
    """
    if not isinstance(observations, Box):
        raise UsageError(f"environment {env_id!r} has observations {observations}; a Box is needed")
    if not observations.shape:
        raise UsageError(f"environment {env_id!r} has observations without a dimension; at least one is needed")
    if not isinstance(actions, Discrete):
        raise UsageError(f"environment {env_id!r} has actions {actions}; Discrete actions are needed")
    if actions.start != 0:
        raise UsageError(f"environment {env_id!r} counts its actions from {actions.start}; 0 is needed")
    return observations, int(actions.n)


def meant_bounds(space: Box) -> Bounds | None:
    """The bounds of a space, or None if one of them is infinite or absurd: then nobody can have meant it."""
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    sizes = np.abs((low, high))
    meant = (sizes == 0) | ((sizes >= _LEAST_BOUND) & (sizes <= _LARGEST_BOUND))
    if not (meant.all() and (low <= high).all()):
        return None
    dtype = state_dtype(space)
    return Bounds(low.astype(dtype), high.astype(dtype))


def state_dtype(space: Box) -> str:
    """The type that states of a space have in the slabs."""
    return "uint8" if space.dtype == np.uint8 else "float32"


def atari_protocol(config: EnvConfig, backend: str, sticky: float) -> str:
    """Says in words what is done to the game; ``sticky`` is the probability of sticky actions."""
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
            f"sticky actions {sticky:g}",
            f"training rewards {'clipped to [-1, 1]' if config.reward_clip else 'not clipped'}",
            f"a lost life {'ends' if config.episodic_life else 'does not end'} an episode",
            f"a game is cut after {atari_limit(config)} steps",
        ]
    )
