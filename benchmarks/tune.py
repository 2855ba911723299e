"""Says whether ``ga3c tune`` finds what a grid finds: runs it, then measures its choice beside a grid of settings.

The grid is measured in rounds, in an order drawn for each, with the tuner's choice and the default among it; then
the best three of the grid, the choice and the default again, by turns. Ratios are of means over all windows.
"""

import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from record import RESULTS, ROOT, BenchmarkError, append, facts, prepare, run_benchmark

from ga3c.build import build_model
from ga3c.config import TrainConfig
from ga3c.envs import EnvSpec
from ga3c.errors import UsageError
from ga3c.presets import validate
from ga3c.resolve import read_options, resolve
from ga3c.scheduling import uninterrupted
from ga3c.signals import Signals
from ga3c.tune.report import in_words
from ga3c.tune.search import Setting, Trials, setting_of, with_setting
from ga3c.tune.trials import Bench

_WINDOWS = 2  # of a measurement
_FINALISTS = 3


@dataclass(frozen=True)
class Options:
    """Compares the tuner's choice with a grid; other options, and the environment, are those of `ga3c train`."""

    minutes: float = 3.0
    """For the tuner."""
    max_lag: float = 3.0
    """As in `ga3c tune`."""
    rounds: int = 2
    """Over the grid."""
    final_rounds: int = 4
    """Over its best, the choice and the default."""
    seed: int = 1
    """Of the orders."""
    record: Path = RESULTS / "tune.jsonl"
    """JSONL file that a row is appended to."""


def main() -> None:
    """Entry point."""
    run_benchmark("tune", lambda: _main(sys.argv[1:]))


def _main(arguments: list[str]) -> None:
    options, rest = tyro.cli(Options, args=arguments, prog="tune.py", return_unknown_args=True)
    if options.rounds < 1 or options.final_rounds < 0:
        raise UsageError("--rounds from 1 and --final-rounds from 0 would be right")
    config, spec = resolve(read_options(rest, "ga3c train"))
    prepare(options.record)
    row = {"measured": "tune", **facts(), "train_arguments": rest, "options": {**vars(options), "record": None}}
    choice = _tune(options, rest)
    start = setting_of(config)
    trials = _measure(options, config, spec, choice, start)
    best = next(setting for setting in trials.ranking() if setting not in (choice, start))
    summary = {
        "choice": _figures(trials, choice),
        "default": _figures(trials, start),
        "best_of_grid": _figures(trials, best),
        "choice_over_default": _ratio(trials, choice, start),
        "choice_over_best_of_grid": _ratio(trials, choice, best),
        "grid": len(trials.windows),
    }
    for name, value in summary.items():
        print(f"{name}: {value}")
    measured = [{**s._asdict(), "windows": [w._asdict() for w in windows]} for s, windows in trials.windows.items()]
    append(options.record, {**row, "summary": summary, "measured_settings": measured})
    print(f"appended to {options.record}")


def _tune(options: Options, rest: list[str]) -> Setting:
    """Runs the command as a user would."""
    with tempfile.TemporaryDirectory(prefix="ga3c-tune-") as temporary:
        out = Path(temporary) / "tuned"
        said = ["--minutes", str(options.minutes), "--max-lag", str(options.max_lag), "--out", str(out)]
        ended = subprocess.run([sys.executable, "-m", "ga3c", "tune", *rest, *said], cwd=ROOT, check=False)
        if ended.returncode:
            raise BenchmarkError(f"ga3c tune ended with {ended.returncode}")
        return Setting(**json.loads((out / "preset.json").read_text(encoding="utf-8"))["options"])


def _grid(config: TrainConfig, spec: EnvSpec, cores: int) -> list[Setting]:
    start = setting_of(config)
    settings = [
        start._replace(actors=n * cores, envs_per_actor=envs, min_training_batch=batch)
        for n in (1, 2, 4)
        for envs in (8, 16, 32)
        for batch in (80, 160, 320, 640)
    ]
    found = []
    for setting in settings:
        try:
            validate(with_setting(config, setting), spec)
            found.append(setting)
        except UsageError:  # such a batch cannot be filled: the largest that can, and another predictor
            most = config.t_max * setting.actors * setting.envs_per_actor * (config.segments - 1)
            found.append(setting._replace(min_training_batch=most, predictors=2))
    return list(dict.fromkeys(found))


def _measure(options: Options, config: TrainConfig, spec: EnvSpec, choice: Setting, start: Setting) -> Trials:
    model, _ = build_model(config, spec)
    trials, draw, signals = Trials("training_samples", options.max_lag), random.Random(options.seed), Signals()
    settings = list(dict.fromkeys([*_grid(config, spec, len(os.sched_getaffinity(0))), choice, start]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with uninterrupted(), Bench(config, spec, model, signals.wait) as bench:  # as the tuner's trials, and runs
        for number in range(options.rounds + options.final_rounds):
            if number == options.rounds:
                others = [setting for setting in trials.ranking() if setting not in (choice, start)]
                settings = list(dict.fromkeys([*others[:_FINALISTS], choice, start]))
            # By their environments, which are made once a round and not for each setting.
            order = draw.sample(settings, len(settings))
            games = {(s.actors, s.envs_per_actor): place for place, s in reversed(list(enumerate(order)))}
            for setting in sorted(order, key=lambda s: games[s.actors, s.envs_per_actor]):
                trials.add(setting, bench.measure(setting, _WINDOWS))
                print(f"round {number + 1}: {in_words(setting)}: {trials.mean(setting):,.0f} a second", flush=True)
    return trials


def _figures(trials: Trials, setting: Setting) -> dict[str, Any]:
    return {
        **setting._asdict(),
        "a_second": round(trials.mean(setting), 1),
        "standard_error": round(trials.error(setting), 1),
        "policy_lag": round(trials.lag(setting), 2),
        "windows": len(trials.windows[setting]),
    }


def _ratio(trials: Trials, one: Setting, other: Setting) -> dict[str, float]:
    """Of the means, with its standard error."""
    a, b = trials.mean(one), trials.mean(other)
    relative = math.hypot(trials.error(one) / a, trials.error(other) / b)
    return {"ratio": round(a / b, 3), "standard_error": round(a / b * relative, 3)}


if __name__ == "__main__":
    main()
