"""From what a user says of a training run to every option of it, without torch."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

from ga3c.choices import Dynamic, gpu_driver_is_there
from ga3c.config import TrainConfig, read_config
from ga3c.curves import is_simulated
from ga3c.envs import EnvSpec, env_spec
from ga3c.options import parse
from ga3c.presets import default_config, fit, in_mode, validate, validate_alone
from ga3c.watchdog import time_limit


@dataclass(frozen=True)
class Said:
    """What a user said, each option right by itself.

    Attributes:
      arguments, prog: the words, and the command that they follow.
      config: with them, but without the defaults that depend on environment and machine.
      before: the configuration of the run that is resumed, if one is.
    """

    arguments: Sequence[str]
    prog: str
    config: TrainConfig
    before: TrainConfig | None


def read_options(arguments: Sequence[str], prog: str) -> Said:
    """Reads the options of ``ga3c train``; ``--help`` prints them, with the defaults of this machine, and ends.

    Raises:
      UsageError: with the first that is wrong by itself.
    """
    if "-h" in arguments or "--help" in arguments:
        parse(TrainConfig, arguments, prog, _defaults(TrainConfig(), None)[0])
    arguments = _with_values(arguments)
    # What a user says of these decides the defaults of the rest, so they are read first.
    config = parse(TrainConfig, arguments, prog)
    before = None
    if config.resume is not None:
        before = dataclasses.replace(read_config(config.resume), resume=config.resume)
        config = parse(TrainConfig, arguments, prog, before)
    validate_alone(config)
    return Said(arguments, prog, config, before)


def _with_values(arguments: Sequence[str]) -> list[str]:
    """``--dynamic`` alone means ``--dynamic climb``."""
    words: list[str] = []
    for word, following in pairwise([*arguments, ""]):
        words.append(word)
        if word == "--dynamic" and following not in get_args(Dynamic):
            words.append("climb")
    return words


def resolve(said: Said) -> tuple[TrainConfig, EnvSpec]:
    """Looks the environment up, and fills in what the user did not say.

    Raises:
      UsageError: the environment cannot be had, or options do not go together.
    """
    default, spec = _defaults(said.config, said.before)
    config = fit(parse(TrainConfig, said.arguments, said.prog, default), default)
    config = dataclasses.replace(config, preset=default.preset)  # by its name, where a file was given
    validate(config, spec)
    return config, spec


def _defaults(said: TrainConfig, before: TrainConfig | None) -> tuple[TrainConfig, EnvSpec]:
    """What holds where the user says nothing, and the environment."""
    on_cuda = _on_cuda(said)
    with time_limit(said.actor_timeout, f"making {said.env}"):
        spec = env_spec(said.env_config())
    if before is None:
        return default_config(said.mode, said.preset, spec, on_cuda), spec
    return before if said.mode == before.mode else in_mode(before, said.mode, spec, on_cuda), spec


def _on_cuda(config: TrainConfig) -> bool:
    if is_simulated(config.device):
        return True  # it takes no core either
    if config.device == "cpu" or (config.device == "auto" and not gpu_driver_is_there()):
        return False
    from ga3c.device import resolve_device

    return resolve_device(config.device).type == "cuda"
