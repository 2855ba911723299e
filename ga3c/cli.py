"""The command line: ``ga3c train``, ``eval``, ``play``, ``report``, ``export``, ``compare``, ``tune``, ``networks``.

What loads torch is imported where it is needed: options are read and checked, and help is given, without it.

Exit codes: 0 done, 1 a failure inside, 2 the user asked for what cannot be had, 130 and 143 after Ctrl-C and SIGTERM,
129 after its terminal has gone.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ga3c import __version__
from ga3c.choices import ExportFormat
from ga3c.config import TrainConfig
from ga3c.curves import Curve
from ga3c.display import say_error
from ga3c.envs import EnvError, EnvSpec
from ga3c.errors import UsageError, WorkerError
from ga3c.folder import check_checkpoint
from ga3c.launch import launching
from ga3c.options import parse
from ga3c.resolve import read_options, resolve
from ga3c.surroundings import Surroundings

USAGE = """usage: ga3c COMMAND [options]

  train [ENV]            train an agent; ENV is Pong-v5 unless you say otherwise
  eval RUN...            play whole games with trained agents and print the scores, over seeds and games too
  play RUN|CHECKPOINT    film a trained agent at play (MP4, GIF), or watch it live
  report RUN...          one HTML file of runs and comparisons: curves, rates, queues, settings
  export RUN|CHECKPOINT  write a trained policy to a file that runs without this package: ONNX or torch.export
  compare                run modes and networks on equal terms; a report with pictures of what each gains
  tune [ENV]             find the counts and batches that are fastest on this machine, and write them to a preset
  networks               the networks to choose from, and what they cost

ga3c COMMAND --help tells its options; ga3c --version, which release this is."""


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    commands = {
        "train": _train,
        "eval": _eval,
        "play": _play,
        "report": _report,
        "export": _export,
        "compare": _compare,
        "tune": _tune,
        "networks": _networks,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"ga3c {__version__}")
        return 0
    try:
        # Modules of the user's own (environments, networks) lie where the command is given.
        if (folder := str(Surroundings.now().folder)) not in sys.path:
            sys.path.append(folder)
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
    said = read_options(arguments, "ga3c train")
    with launching(said.config.mode) as launch:
        return launch(*resolve(said)).exitcode


def _tune(arguments: list[str]) -> int:
    from ga3c.tune import run_tune

    return run_tune(arguments)


def _eval(arguments: list[str]) -> int:
    from ga3c.scores import run_eval

    return run_eval(arguments)


def _report(arguments: list[str]) -> int:
    from ga3c.report import run_report

    return run_report(arguments)


@dataclass(frozen=True)
class ExportOptions:
    """Writes a trained policy to a file that runs without this package, and checks it on real states."""

    path: Annotated[Path, tyro.conf.Positional]
    """Run folder, whose newest checkpoint is taken, or a checkpoint."""
    format: ExportFormat = "onnx"
    """onnx: for onnxruntime and others. torch: for torch.export.load, which needs torch alone."""
    out: Path | None = None
    """File to write, .onnx or .pt2; default policy in the run's folder. One that is there is replaced."""


def _export(arguments: list[str]) -> int:
    options = parse(ExportOptions, arguments, "ga3c export")
    check_checkpoint(options.path)
    from ga3c.export import export

    print(export(options.path, format=options.format, out=options.out))
    return 0


def _play(arguments: list[str]) -> int:
    from ga3c.play import run_play

    return run_play(arguments)


def _compare(arguments: list[str]) -> int:
    from ga3c.compare import run_compare

    return run_compare(arguments)


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

    from ga3c.device import resolve_device
    from ga3c.flops import cost
    from ga3c.latency import check_writable, measure, write_curves
    from ga3c.networks import NETWORKS, build_network

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
