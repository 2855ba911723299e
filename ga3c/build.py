"""From a configuration to the model that it asks for."""

from typing import Any

import torch

from ga3c.config import TrainConfig
from ga3c.curves import find_curve, is_simulated
from ga3c.device import keep_freed_memory, place, resolve_device, resolve_precision
from ga3c.envs import EnvSpec
from ga3c.model import Model
from ga3c.networks import build_network, cost
from ga3c.optim import build_optimiser
from ga3c.simulated import SimulatedModel, Timeline


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
