"""EnvPool's environments."""

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from operator import itemgetter
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ga3c.envs.base import (
    ALE_STICKY_ACTIONS,
    ATARI_FPS,
    DEFAULT_FPS,
    EnvConfig,
    EnvError,
    EnvSpec,
    Step,
    any_of,
    atari_limit,
    atari_protocol,
    check_autoreset,
    check_finite,
    check_spaces,
    is_ale,
    meant_bounds,
    state_dtype,
    sticky_actions,
)
from ga3c.errors import working_directory

# Gymnasium says this of each space that EnvPool makes with float64 bounds; whoever trains can do nothing about it.
warnings.filterwarnings("ignore", message=".*precision lowered by casting to float32.*", category=UserWarning)

_ENV_IDS = ("env_id", "players.env_id")  # what EnvPool takes before the actions: whose they are
_STATE = ("obs", "reward", "done", "trunc")  # what is read of its answers, and of an Atari game's
_ATARI_STATE = (*_STATE, "info:reward", "info:lives", "info:terminated")


# Registers games that are drawn with matplotlib: with it EnvPool takes twice as long to import, in every process.
_DEFERRED = "envpool.jumanji.registration"


def _envpool() -> ModuleType:
    """The library, but for what is deferred. Its import takes most of a second, and comes when it is needed."""
    if "envpool" not in sys.modules:
        working_directory()  # without one, its import aborts the process
        sys.modules[_DEFERRED] = ModuleType(_DEFERRED)
        try:
            import envpool
        finally:
            sys.modules.pop(_DEFERRED, None)
    import envpool

    return envpool


def load() -> None:
    """Imports the library."""
    _envpool()


def has(name: str) -> bool:
    """Whether EnvPool has an environment of that name."""
    return name in _envpool().list_all_envs() or name in known_ids()


def known_ids() -> list[str]:
    """Every id that EnvPool has."""
    library = _envpool()
    with contextlib.suppress(ImportError):  # another version of EnvPool may have no such games
        importlib.import_module(_DEFERRED)
    ids: list[str] = library.list_all_envs()
    return ids


def _sticky(config: EnvConfig) -> float:
    return sticky_actions(config, ALE_STICKY_ACTIONS if is_ale(config) else 0.0)


def _settings(config: EnvConfig, name: str) -> tuple[dict[str, Any], bool]:
    """What EnvPool is to be made with, and whether it is an Atari game."""
    known = _envpool().make_spec(name).config
    if "noop_max" not in known._fields:
        # Some games of EnvPool's take no limit: those end by themselves.
        if config.max_episode_steps is None or "max_episode_steps" not in known._fields:
            return {}, False
        return {"max_episode_steps": min(config.max_episode_steps, known.max_episode_steps)}, False
    settings = {
        "frame_skip": config.frame_skip,
        "stack_num": config.frame_stack,
        # EnvPool plays 0 to noop_max - 1 no-ops and FIRE, or 1 to noop_max where FIRE is off; 0 makes it crash.
        "noop_max": max(1, config.noop_max),
        "use_fire_reset": config.fire_on_reset,
        "repeat_action_probability": _sticky(config),
        "reward_clip": config.reward_clip,
        "episodic_life": config.episodic_life,
        "max_episode_steps": atari_limit(config),
    }
    return settings, True


def spec(config: EnvConfig, name: str) -> EnvSpec:
    """See ``env_spec``; ``name`` is EnvPool's."""
    settings, atari = _settings(config, name)
    made = _envpool().make_spec(name, **settings)
    observations, actions = made.gymnasium_observation_space, made.gymnasium_action_space
    space, num_actions = check_spaces(config.id, observations, actions)
    protocol = atari_protocol(config, "EnvPool", _sticky(config)) if atari else "none"
    frames = config.frame_skip if atari else 1
    game = str(made.config.task) if atari else None
    dtype, bounds = state_dtype(space), meant_bounds(space)
    return EnvSpec(name, "envpool", space.shape, dtype, num_actions, frames, game, protocol, bounds)


def _usual_fps(name: str) -> float:
    """What Gymnasium says of its own environment of that id: EnvPool's do not say."""
    import gymnasium

    with contextlib.suppress(gymnasium.error.Error, ImportError, AttributeError):
        known = gymnasium.spec(name).entry_point
        made: Any = gymnasium.envs.registration.load_env_creator(known) if isinstance(known, str) else known
        return float(made.metadata.get("render_fps", DEFAULT_FPS))
    return DEFAULT_FPS


@contextlib.contextmanager
def _maker_gives_way() -> Iterator[None]:
    """Lets the thread that makes EnvPool's buffers ahead run only where a core has nothing else to do.

    Every answer that is taken wakes it: 13 us of CPU, of 500 that a step of one game takes. When none is made, whoever
    takes an answer makes the next buffer (``StateBufferQueue`` in EnvPool's source). It is the first thread that an
    environment starts, and the kernel numbers threads upwards, until it begins again.

    It also delays the end of the process, which has to wait for its last thread: beside 24 busy processes on two cores
    that took 46 and 130 s, against 0.6 s without it. So it is not used where a user waits for the process to end.
    """
    earlier = _threads()
    yield
    started = _threads() - earlier
    if started:
        own = os.getpid()
        maker = min(started, key=lambda thread: (thread < own, thread))
        with contextlib.suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(maker, os.SCHED_IDLE, os.sched_param(0))


def _threads() -> set[int]:
    """The kernel's numbers of this process's threads; none where it does not say."""
    with contextlib.suppress(OSError):
        return {int(name) for name in os.listdir("/proc/self/task")}
    return set()


class EnvPoolEnv:
    """EnvPool's environments."""

    def __init__(
        self,
        config: EnvConfig,
        name: str,
        seeds: list[int],
        threads: int,
        *,
        filmed: bool = False,
        maker_gives_way: bool = False,
    ) -> None:
        """``threads`` is 1 in an actor: the other cores belong to the other actors. ``filmed``: as ``FilmedEnv``.

        ``maker_gives_way``: see ``_maker_gives_way``; not for a process whose end a user waits for.
        """
        self.num_envs = len(seeds)
        settings, self._atari = _settings(config, name)
        self.fps = DEFAULT_FPS
        if filmed:
            self.fps = ATARI_FPS / config.frame_skip if self._atari else _usual_fps(name)
        film = {"render_mode": "rgb_array"} if filmed else {}
        library = _envpool()
        with _maker_gives_way() if maker_gives_way else contextlib.nullcontext():
            self._env = library.make_gymnasium(
                name, num_envs=len(seeds), num_threads=threads, env_seed=seeds, seed=seeds[0], **settings, **film
            )
        check_autoreset(config.id, self._env.metadata)
        self._dtype = spec(config, name).observation_dtype
        (action,) = (n for n in self._env._action_keys if n not in _ENV_IDS)
        ids = np.arange(len(seeds), dtype=np.int32)
        self._actions = np.zeros(len(seeds), self._env.spec.action_array_spec[action].dtype)
        self._sent = [*(ids for _ in _ENV_IDS), self._actions]
        names = _ATARI_STATE if self._atari else _STATE
        self._pick: Callable[[list[NDArray[Any]]], tuple[NDArray[Any], ...]] = itemgetter(
            *(self._env._state_keys.index(name) for name in names)
        )
        self._lives = np.zeros(len(seeds), np.int32)
        self._ended = np.zeros(len(seeds), np.bool_)  # by the last step: the next one resets
        self._resets = False  # the next step, an environment at least
        self._game_over = np.zeros(len(seeds), np.bool_)  # at the last step

    def reset(self) -> NDArray[Any]:
        """See ``VectorEnv``."""
        states, info = self._env.reset()
        if self._atari:
            self._lives = info["lives"]
        return np.asarray(states).astype(self._dtype, copy=False)

    def step(self, actions: NDArray[np.int64]) -> Step:
        """See ``VectorEnv``."""
        states, rewards, done, truncated, *atari = self._step(actions)
        if self._atari:  # bytes, and rewards that are sums of a few integers
            game_rewards, lives, terminated = atari
        else:
            states, rewards = states.astype(self._dtype, copy=False), rewards.astype(np.float32, copy=False)
            check_finite("reward", rewards)
            if self._dtype != "uint8":
                check_finite("state", states)
            game_rewards, lives = rewards, self._lives
        if not (self._resets or any_of(done) or any_of(truncated)):
            # Nearly always. What follows would be a third of an actor's own work.
            self._lives = lives
            return Step(states, rewards, done, truncated, game_rewards, done, any_ended=False)
        game_over = ended = done | truncated
        if self._atari:
            game_over = (terminated != 0) | truncated
            # After a lost life EnvPool plays no-ops; a game that ends in them is started anew without a word, but for
            # the lives, which have risen after a step that resets. (A life that is won rises in the middle of play.)
            game_over = game_over | (self._ended & ~self._game_over & (lives > self._lives))
            self._lives = lives
        self._ended = ended & ~self._ended
        self._resets = any_of(self._ended)
        self._game_over = game_over
        return Step(states, rewards, ended & ~truncated, truncated, game_rewards, game_over, any_ended=True)

    def _step(self, actions: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """What ``step`` of EnvPool's Gymnasium class does, without its dictionaries and copies.

        They cost an actor of 8 games 0.2 ms a step, 5 % of the games' own time. Returns what ``_STATE`` names, or
        ``_ATARI_STATE``.
        """
        try:
            self._actions[...] = actions  # no game reads them any more: every one has answered
            self._env._send(self._sent)
            return self._pick(self._env._recv())
        except Exception as error:
            raise EnvError(f"the environments raised {type(error).__name__} in step: {error}") from error

    def frame(self) -> NDArray[np.uint8]:
        """See ``FilmedEnv``."""
        try:
            frames: NDArray[np.uint8] = self._env.render()
        except RuntimeError as error:  # not every environment of EnvPool's has a picture
            raise EnvError(f"the environment cannot be drawn: {error}") from error
        return np.asarray(frames[0])

    def close(self) -> None:
        """See ``VectorEnv``."""
        self._env.close()
