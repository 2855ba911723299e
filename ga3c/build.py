"""From a configuration to the model that it asks for."""

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ga3c.config import TrainConfig
from ga3c.curves import find_curve, is_simulated
from ga3c.device import keep_freed_memory, place, plain_torch, resolve_device, resolve_precision
from ga3c.envs import EnvError, EnvSpec, env_seeds, envs_in_one_process, make_env, random_play
from ga3c.flops import cost
from ga3c.model import Model
from ga3c.networks import build_network
from ga3c.optim import build_optimiser
from ga3c.scaling import Scaled
from ga3c.simulated import SimulatedModel, Timeline
from ga3c.supervisor import MAX_DEATHS
from ga3c.watchdog import time_limit

_RANDOM_ENVS = 4  # at most
_RANDOM_STEPS = 1600  # of all of them together, which give one round of states to take statistics of
_MOST_ROUNDS, _MOST_ROUNDS_S = 10, 20.0  # while the screen stands still; no round begins after so many seconds


@contextmanager
def settings_kept() -> Iterator[None]:
    """Gives back, at its end, what a run sets in torch for the whole process: threads, precision, random numbers."""
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    precision = None
    with contextlib.suppress(RuntimeError):  # the program uses torch's newer words for it, which do not mix with these
        precision = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(random)
        if precision is not None:
            torch.set_float32_matmul_precision(precision[0])
            torch.backends.cudnn.allow_tf32 = precision[1]


@plain_torch()
def build_model(config: TrainConfig, spec: EnvSpec) -> tuple[Model, dict[str, Any]]:
    """Makes the model that a configuration asks for; returns it with what is worth telling of it.

    Raises:
      UsageError: the network, the device or the precision cannot be had.
    """
    simulated = is_simulated(config.device)
    device = torch.device("cpu") if simulated else resolve_device(config.device)
    precision = "fp32" if simulated else resolve_precision(config.precision, device)
    keep_freed_memory()
    torch.set_num_threads(config.torch_threads)
    torch.manual_seed(config.seed)
    network = build_network(
        config.network,
        spec.observation_shape,
        spec.num_actions,
        config.initialisation,
        channels_last=spec.channels_last,
    )
    _scale_by_bounds(network, spec)
    states = torch.zeros((1, *spec.observation_shape), dtype=_dtype(spec))
    parameters, mflop = cost(network, states, spec.num_actions)
    # Workers of mode a3c have their replicas on the device; what they share is in the host's memory.
    home = torch.device("cpu") if config.mode == "a3c" else device
    place(network, home)
    optimiser = build_optimiser(
        config.optimiser, network.parameters(), config.learning_rate, config.decay, config.epsilon
    )
    model: Model
    if simulated:
        model = SimulatedModel(
            network,
            optimiser,
            config.loss_config(),
            curve=find_curve(config.device, config.network),
            timeline=Timeline(),
            num_actions=spec.num_actions,
            several_threads=config.mode == "ga3c",
        )
    else:
        model = Model(
            network,
            optimiser,
            config.loss_config(),
            max_grad_norm=config.max_grad_norm,
            device=home,
            precision=precision,
            several_threads=config.mode == "ga3c",
        )
    facts = {
        "device": config.device if simulated else str(device),
        "precision": None if simulated else precision,
        "parameters": parameters,
        "mflop_per_state": round(mflop, 3),
    }
    return model, facts


def normalise(network: nn.Module, config: TrainConfig, spec: EnvSpec, *, quiet: bool = True) -> str | None:
    """Scales the observations by statistics of random play, if ``config.normalise_states`` is set and they help.

    They help for pictures, and for bytes that use a small part of their bounds. Unless ``quiet``, a terminal is told
    when random play takes longer than a few seconds.

    Returns:
      A sentence for the user if the states hardly differed, so that only the bounds scale them; otherwise None.

    Raises:
      EnvError: the environment failed, where that ends a run.
    """
    waits = is_simulated(config.device)  # and needs no statistics
    if not config.normalise_states or waits or not isinstance(network, Scaled) or not network.scales(_dtype(spec)):
        return None
    generation = 0
    with time_limit(config.actor_timeout, f"random play of {config.env}", quiet=quiet):
        while True:
            try:
                return _normalise_by_play(network, config, spec, generation)
            except EnvError:
                generation += 1
                if config.on_env_error == "stop" or generation == MAX_DEATHS:
                    raise


def _normalise_by_play(network: Scaled, config: TrainConfig, spec: EnvSpec, generation: int) -> str | None:
    """Plays until the screen does not stand still, for some rounds at most; see ``normalise``."""
    env_config, began, rounds = config.env_config(), time.monotonic(), 0
    num_envs = envs_in_one_process(env_config, _RANDOM_ENVS, config.envs_per_actor)
    seeds = env_seeds(config.seed, 0, generation, num_envs)
    env = make_env(env_config, seeds, threads=len(os.sched_getaffinity(0)))
    try:
        play = random_play(env, spec.num_actions, config.seed, _RANDOM_STEPS // num_envs)
        for states in map(torch.from_numpy, islice(play, _MOST_ROUNDS)):
            rounds += 1
            if spec.bounds is None:
                _scale_by_extremes(network, states)
            if network.normalise(states):
                return None
            if time.monotonic() - began > _MOST_ROUNDS_S:
                break
    finally:
        env.close()
    return (
        f"{rounds * _RANDOM_STEPS:,} steps of random play looked all alike: observations are scaled by their bounds"
        " alone, not by statistics"
    )


def _scale_by_bounds(network: nn.Module, spec: EnvSpec) -> None:
    """Scales by the bounds of the space, in the package's networks; floats without bounds stay as they are."""
    dtype = _dtype(spec)
    if not isinstance(network, Scaled) or not network.scales(dtype):
        return
    if spec.bounds is not None:
        network.scale_by(torch.from_numpy(spec.bounds.low), torch.from_numpy(spec.bounds.high))
    elif dtype != torch.uint8:
        network.scale_by(torch.zeros(spec.observation_shape), torch.ones(spec.observation_shape))


def _scale_by_extremes(network: Scaled, states: Tensor) -> None:
    """The least and the largest number of random play stand for bounds that an environment does not have."""
    low, high = states.min(), states.max()
    if low < high:
        network.scale_by(low.expand(states.shape[1:]), high.expand(states.shape[1:]))


def _dtype(spec: EnvSpec) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, spec.observation_dtype)
    return dtype
