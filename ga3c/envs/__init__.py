"""Environments: EnvPool and Gymnasium behind one small protocol. No torch here: actors live in this room.

Both backends reset on the step after an episode's end (``AutoresetMode.NEXT_STEP``); that step's reward is 0 and its
action is ignored. Whoever steps an environment has to leave it out of what it learns (see ``returns``).
"""

import os

import numpy as np

from ga3c.envs import envpool_backend, gymnasium_backend
from ga3c.envs.actions import action_names
from ga3c.envs.base import Backend, Bounds, EnvConfig, EnvError, EnvSpec, FilmedEnv, Step, VectorEnv, atari_game
from ga3c.envs.player import Episode, Player, random_play, random_states
from ga3c.errors import UsageError, nearest

__all__ = [
    "Backend",
    "Bounds",
    "EnvConfig",
    "EnvError",
    "EnvSpec",
    "Episode",
    "FilmedEnv",
    "Player",
    "Step",
    "VectorEnv",
    "action_names",
    "atari_game",
    "cores_to_make",
    "env_seeds",
    "env_spec",
    "envs_in_one_process",
    "load_backends",
    "make_env",
    "make_filmed",
    "random_play",
    "random_states",
]


def load_backends() -> None:
    """Imports EnvPool, which takes long: in a forkserver, so that its children need not, and share its memory."""
    envpool_backend.load()


def env_spec(config: EnvConfig) -> EnvSpec:
    """Looks the environment up, without making more of it than that needs.

    Raises:
      UsageError: it does not exist, or its spaces are not supported.
    """
    name = _envpool_name(config)
    return envpool_backend.spec(config, name) if name else gymnasium_backend.spec(config)


def make_env(config: EnvConfig, seeds: list[int], threads: int = 1, *, in_worker: bool = False) -> VectorEnv:
    """Makes K environments, one for each seed; EnvPool steps them on ``threads`` threads.

    ``in_worker``: for an actor or a worker, a process whose end nobody waits for long; see ``EnvPoolEnv``.

    Raises:
      UsageError: as ``env_spec``.
    """
    name = _envpool_name(config)
    if name:
        return envpool_backend.EnvPoolEnv(config, name, seeds, threads, maker_gives_way=in_worker)
    return gymnasium_backend.GymnasiumEnv(config, seeds)


def cores_to_make(config: EnvConfig, num_envs: int) -> int:
    """How many cores ``make_env`` is busy on: EnvPool makes environments in as many threads, Gymnasium in one."""
    return min(num_envs, len(os.sched_getaffinity(0))) if _envpool_name(config) else 1


def envs_in_one_process(config: EnvConfig, wanted: int, envs_per_actor: int) -> int:
    """How many environments to make in this process, at most ``wanted``, for evaluation or random play.

    Some Gymnasium environments allow only one or a few in a process, so no more are made than an actor makes, as
    ``envs_per_actor`` says. EnvPool's share a process safely.
    """
    return wanted if _envpool_name(config) else min(wanted, envs_per_actor)


def make_filmed(config: EnvConfig, seed: int) -> FilmedEnv:
    """Makes one environment that can be looked at.

    Raises:
      UsageError: as ``env_spec``.
      EnvError: it cannot be made so that it draws itself.
    """
    name = _envpool_name(config)
    if name:
        return envpool_backend.EnvPoolEnv(config, name, [seed], threads=1, filmed=True)
    return gymnasium_backend.GymnasiumEnv(config, [seed], filmed=True)


def env_seeds(seed: int, actor: int, generation: int, num_envs: int) -> list[int]:
    """K seeds for the environments of one actor.

    EnvPool gives environment i ``seed + i``, so that neighbouring seeds share games. These are hashed instead, from the
    run's seed, the actor's index and how often that actor has been started.
    """
    sequence = np.random.SeedSequence((seed, actor, generation))
    return [int(word) & 0x7FFFFFFF for word in sequence.generate_state(num_envs)]


def _envpool_name(config: EnvConfig) -> str | None:
    """EnvPool's name of the environment, or None if Gymnasium is to make it."""
    if config.backend == "gymnasium":
        return None
    name = config.id.removeprefix("ALE/")
    if ":" not in name and envpool_backend.has(name):
        return name
    if config.backend == "envpool":
        raise UsageError(f"EnvPool has no environment {config.id!r}{nearest(name, envpool_backend.known_ids())}")
    return None
