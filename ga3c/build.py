"""From a configuration to the model that it asks for."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from ga3c.config import TrainConfig
from ga3c.curves import find_curve, is_simulated
from ga3c.device import keep_freed_memory, place, plain_torch, resolve_device, resolve_precision
from ga3c.envs import EnvError, EnvSpec, env_seeds, make_env, random_states
from ga3c.model import Model
from ga3c.networks import ConvNetwork, build_network, cost
from ga3c.optim import build_optimiser
from ga3c.simulated import SimulatedModel, Timeline
from ga3c.supervisor import MAX_DEATHS
from ga3c.watchdog import time_limit

_RANDOM_ENVS = 4


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
    network = build_network(config.network, spec.observation_shape, spec.num_actions, config.initialisation)
    states = torch.zeros((1, *spec.observation_shape), dtype=getattr(torch, spec.observation_dtype))
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


def normalise(network: nn.Module, config: TrainConfig, spec: EnvSpec) -> None:
    """Gives a network of images the mean image of some random play, if ``config`` wants it.

    Raises:
      EnvError: the environment failed, where that ends a run.
    """
    waits = is_simulated(config.device)  # and needs no mean image
    if config.normalise_states and not waits and isinstance(network, ConvNetwork):
        with time_limit(config.actor_timeout, f"random play of {config.env}"):
            network.normalise(torch.from_numpy(_random_play(config, spec)))


def _random_play(config: TrainConfig, spec: EnvSpec) -> NDArray[Any]:
    """States [N, ...] of a second of random play, once."""
    generation = 0
    while True:
        try:
            seeds = env_seeds(config.seed, 0, generation, _RANDOM_ENVS)
            env = make_env(config.env_config(), seeds, threads=len(os.sched_getaffinity(0)))
            states = random_states(env, spec.num_actions, config.seed)
            env.close()
            return states
        except EnvError:
            generation += 1
            if config.on_env_error == "stop" or generation == MAX_DEATHS:
                raise
