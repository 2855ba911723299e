"""From what a user says of a training run to every option of it, without torch."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from ga3c.choices import Dynamic, computes_on_cpu
from ga3c.config import TrainConfig, check_options, read_config
from ga3c.curves import absolute_device, is_simulated
from ga3c.envs import EnvSpec, env_spec
from ga3c.errors import UsageError, working_directory
from ga3c.folder import find_checkpoint
from ga3c.options import parse
from ga3c.presets import default_config, fit, in_mode, validate, validate_alone
from ga3c.watchdog import time_limit


@dataclass(frozen=True)
class Said:
    """What a user said, each option right by itself.

    Attributes:
      put_on: gives a configuration with what the user said in place of its own.
      config: what the user said, without the defaults that depend on environment and machine.
      before: the configuration of the run that is resumed, if one is.
    """

    put_on: Callable[[TrainConfig], TrainConfig]
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
    return _said(lambda default: parse(TrainConfig, arguments, prog, default))


def take_options(options: Mapping[str, Any]) -> Said:
    """The same of values by the names of ``TrainConfig``'s fields.

    Raises:
      UsageError: with the first that is wrong by itself.
    """
    values = check_options(options)
    return _said(lambda default: dataclasses.replace(default, **values))


def _said(put_on: Callable[[TrainConfig], TrainConfig]) -> Said:
    here = Path(working_directory())  # which code of the user's may change later; without one, libraries abort
    # What a user says of these decides the defaults of the rest, so they are read first.
    config = put_on(TrainConfig())
    before = None
    if config.resume is not None:
        _check_resume(config, put_on)
        before = dataclasses.replace(read_config(config.resume), resume=config.resume)
        find_checkpoint(config.resume)
        config = put_on(before)
    validate_alone(config)
    return Said(lambda default: _with_paths_in(here, put_on(default)), _with_paths_in(here, config), before)


def _with_paths_in(folder: Path, config: TrainConfig) -> TrainConfig:
    paths = {name: folder / path for name in ("out", "resume") if (path := getattr(config, name)) is not None}
    return dataclasses.replace(config, **paths, device=absolute_device(config.device, folder))


def _check_resume(config: TrainConfig, put_on: Callable[[TrainConfig], TrainConfig]) -> None:
    """Raises UsageError where options do not go with a run that is resumed."""
    if config.out is not None:
        raise UsageError(f"--out: got {config.out} beside --resume; a resumed run goes on in its folder, leave it out")
    if (preset := put_on(dataclasses.replace(TrainConfig(), preset="")).preset) != "":
        raise UsageError(f"--preset: got {preset} beside --resume; a resumed run keeps its settings, leave it out")


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
    config = fit(said.put_on(default), default)
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
    if computes_on_cpu(config.device):
        return False
    if not is_simulated(config.device):  # which takes no core either
        from ga3c.device import resolve_device

        resolve_device(config.device)
    return True
