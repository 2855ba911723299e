"""The command line: ``ga3c train``, ``eval``, ``compare`` and ``networks``.

What loads torch is imported where it is needed: options are read and checked, and help is given, without it.

Exit codes: 0 done, 1 a failure inside, 2 the user asked for what cannot be had, 130 and 143 after Ctrl-C and SIGTERM.
"""

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ga3c.choices import gpu_driver_is_there
from ga3c.config import TrainConfig, read_config
from ga3c.curves import Curve, is_simulated
from ga3c.envs import EnvError, EnvSpec, env_spec
from ga3c.errors import UsageError, WorkerError
from ga3c.launch import launching
from ga3c.options import parse
from ga3c.presets import default_config, fit, in_mode, validate, validate_alone
from ga3c.report import say_error
from ga3c.watchdog import time_limit

if TYPE_CHECKING:
    from ga3c.evaluate import Evaluation

_SHORTEST_LIMIT_S = 60.0  # for an environment to be made, however short its steps may be

USAGE = """usage: ga3c COMMAND [options]

  train [ENV]            train an agent; ENV is Pong-v5 unless you say otherwise
  eval RUN|CHECKPOINT    play whole games with a trained agent and print the scores
  compare                run modes and networks on equal terms; a report with pictures of what each gains
  networks               the networks to choose from, and what they cost

ga3c COMMAND --help tells its options."""


@dataclass(frozen=True)
class EvalOptions:
    """Plays whole games with a trained agent and prints the scores."""

    path: Annotated[Path, tyro.conf.Positional]
    """Run folder, whose newest checkpoint is taken, or a checkpoint."""
    episodes: int = 30
    """Games to play."""
    greedy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the likeliest action; --sample, the default, draws from the policy."""
    sample: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Draw actions from the policy, as in training."""
    seed: int = 1000
    """Seed of games and sampling."""
    device: str = "auto"
    """auto takes CUDA where there is one; else cpu, cuda, cuda:N."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object."""


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    # Modules of the user's own (environments, networks) lie where the command is given.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    commands = {"train": _train, "eval": _eval, "compare": _compare, "networks": _networks}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    try:
        if arguments[0] not in commands:
            raise UsageError(f"unknown command {arguments[0]!r}; {', '.join(commands)} would be right")
        return commands[arguments[0]](arguments[1:])
    except UsageError as error:
        say_error(f"ga3c: {error}")
        return 2
    except (WorkerError, EnvError) as error:
        say_error(f"ga3c: {error}")
        return 1
    except BrokenPipeError:  # `ga3c ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to be written when Python ends
        return 1


def _train(arguments: list[str]) -> int:
    prog = "ga3c train"
    if _asks_for_help(arguments):
        parse(TrainConfig, arguments, prog, _defaults(TrainConfig(), None)[0])  # and ends
    # What a user says of these decides the defaults of the rest, so they are read first.
    said = parse(TrainConfig, arguments, prog)
    before = None  # the run's own configuration, if one is resumed
    if said.resume is not None:
        before = dataclasses.replace(read_config(said.resume), resume=said.resume)
        said = parse(TrainConfig, arguments, prog, before)
    validate_alone(said)
    with launching(said.mode) as launch:
        default, spec = _defaults(said, before)
        config = fit(parse(TrainConfig, arguments, prog, default), default)
        validate(config, spec)
        return launch(config, spec)


def _defaults(said: TrainConfig, before: TrainConfig | None) -> tuple[TrainConfig, EnvSpec]:
    """What holds where the user says nothing, and the environment."""
    on_cuda = _on_cuda(said)
    with time_limit(max(said.actor_timeout, _SHORTEST_LIMIT_S), f"making {said.env}"):
        spec = env_spec(said.env_config())
    if before is None:
        return default_config(said.mode, said.preset, spec, on_cuda), spec
    return before if said.mode == before.mode else in_mode(before, said.mode, spec, on_cuda), spec


def _on_cuda(config: TrainConfig) -> bool:
    if is_simulated(config.device):
        return True  # it takes no core either
    if config.device == "cpu" or (config.device == "auto" and not gpu_driver_is_there()):
        return False
    from ga3c.model import resolve_device

    return resolve_device(config.device).type == "cuda"


def _asks_for_help(arguments: list[str]) -> bool:
    return "-h" in arguments or "--help" in arguments


def _eval(arguments: list[str]) -> int:
    options = parse(EvalOptions, arguments, "ga3c eval")
    if options.greedy and options.sample:
        raise UsageError("got --greedy and --sample; one of them would be right")
    if options.episodes < 1:
        raise UsageError(f"--episodes: got {options.episodes}; at least 1 would be right")
    if options.seed < 0:
        raise UsageError(f"--seed: got {options.seed}; at least 0 would be right")
    from ga3c.evaluate import evaluate

    result = evaluate(
        options.path,
        episodes=options.episodes,
        greedy=options.greedy,
        seed=options.seed,
        device=options.device,
    )
    print(json.dumps(dataclasses.asdict(result) | result.summary()) if options.json else _describe(result))
    return 0


def _compare(arguments: list[str]) -> int:
    from ga3c.compare import run_compare

    return run_compare(arguments)


def _describe(result: "Evaluation") -> str:
    s = result.summary()
    lines = [
        f"{result.checkpoint}, trained for {result.env_steps:,} steps",
        f"protocol: {result.protocol}",
        f"{s['episodes']} games, {'greedy' if result.greedy else 'sampled'}:"
        f" mean {s['mean']:.2f}, standard deviation {s['std']:.2f}, median {s['median']:g},"
        f" minimum {s['min']:g}, maximum {s['max']:g}",
    ]
    if result.human_normalised is not None:
        lines.append(f"human-normalised: {result.human_normalised:.1%} (no-op starts, Wang et al. 2015)")
    return "\n".join(lines)


@dataclass(frozen=True)
class NetworksOptions:
    """Prints the networks to choose from: parameters, and MFLOP of a forward pass for one state."""

    fit: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Measure too what predictions and updates take on the device, and fit a line to it."""
    device: str = "auto"
    """To measure: auto takes CUDA where there is one; else cpu, cuda, cuda:N."""
    out: Path | None = None
    """File for the fitted latencies, which `ga3c train --device simulated:FILE` reads; implies --fit."""


def _networks(arguments: list[str]) -> int:
    options = parse(NetworksOptions, arguments, "ga3c networks")
    import torch

    from ga3c.latency import check_writable, measure, write_curves
    from ga3c.model import resolve_device
    from ga3c.networks import NETWORKS, build_network, cost

    fits = options.fit or options.out is not None
    if options.out is not None:
        check_writable(options.out)
    device = resolve_device(options.device)
    curves: dict[str, Curve] = {}
    print(f"{'network':10} {'parameters':>12} {'MFLOP/state':>12}  of 4x84x84 states (mlp: 4) and 6 actions")
    for name, (_, description) in NETWORKS.items():
        shape = (4,) if name == "mlp" else (4, 84, 84)
        parameters, mflop = cost(build_network(name, shape, 6, "orthogonal"), torch.zeros(1, *shape), 6)
        print(f"{name:10} {parameters:12,} {mflop:12.2f}  {description}")
        if fits:
            spec = EnvSpec(name, "envpool", shape, "float32" if name == "mlp" else "uint8", 6, 1, None, "none")
            curves[name] = measure(TrainConfig(network=name, device=str(device)), spec)
            for what, line in (("prediction", curves[name].prediction), ("update", curves[name].training)):
                print(f"  {what} on {device}: {1e3 * line.base_s:.3f} ms + {1e6 * line.per_state_s:.1f} us a state")
    if options.out is not None:
        write_curves(options.out, str(device), curves)
        print(f"written to {options.out}; use: ga3c train --device simulated:{options.out}")
    return 0
