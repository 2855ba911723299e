"""The command ``ga3c tune``: options, the search over its minutes, and what it leaves."""

import contextlib
import datetime
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.live import Live

from ga3c.config import TrainConfig
from ga3c.display import make_console, say, say_error
from ga3c.envs import EnvSpec
from ga3c.errors import UsageError
from ga3c.folder import check_out
from ga3c.machine import machine
from ga3c.options import parse_known
from ga3c.presets import changes, validate
from ga3c.resolve import read_options, resolve
from ga3c.rlimits import provide_descriptors
from ga3c.scheduling import uninterrupted
from ga3c.signals import Signals
from ga3c.tune import report
from ga3c.tune.search import Objective, Setting, Trials, games_to_try, search, setting_of, with_setting

_WINDOWS = 2  # of a trial: one alone has no error
_SHORTEST_MIN = 0.25
_OWN = ("out", "resume", "minutes", "total_steps", "record_every")


@dataclass(frozen=True)
class TuneOptions:
    """Finds the counts and batches that are fastest on this machine, and writes them to a preset.

    Options that are not listed here, and the environment, are those of `ga3c train`; its counts and batches are where
    the search begins. Nothing is learnt.
    """

    objective: Objective = "training_samples"
    """What a second should have most of: training samples, or predictions (pps)."""
    max_lag: float = 3.0
    """Most versions that the policy of a sample may be behind the model, in the mean."""
    minutes: float = 3.0
    """For all trials together."""
    out: Path | None = None
    """Folder for the preset, the table, the picture and the record; default runs/tune-<env>-<time>."""


def run_tune(arguments: list[str]) -> int:
    """Returns the exit code.

    Raises:
      UsageError: the user asked for what cannot be had.
      WorkerError: a role failed in a trial.
    """
    options, rest = parse_known(TuneOptions, arguments, "ga3c tune")
    _check(options)
    said = read_options(rest, "ga3c train")
    for name in _OWN:
        if getattr(said.config, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is not of ga3c tune's; leave it out")
    if said.config.dynamic != "off":
        raise UsageError("--dynamic is not of ga3c tune's; leave it out")
    if said.config.mode != "ga3c":
        raise UsageError(f"--mode: got {said.config.mode!r}; the tuner is for mode ga3c")
    folder = options.out or Path("runs") / f"tune-{_name(said.config.env)}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    check_out(folder)
    folder = folder.absolute()  # before code of the user's is run
    config, spec = resolve(said)
    trials, code = _search(options, config, spec)
    if not trials.windows:
        say_error("stopped before anything was measured")
        return code
    _leave(options, config, spec, trials, folder)
    return code


def _check(options: TuneOptions) -> None:
    if not _SHORTEST_MIN <= options.minutes < math.inf:
        raise UsageError(f"--minutes: got {options.minutes:g}; at least {_SHORTEST_MIN:g} would be right")
    if not options.max_lag >= 0:
        raise UsageError(f"--max-lag: got {options.max_lag:g}; at least 0 would be right")
    if find_spec("matplotlib") is None:
        raise UsageError("tune needs matplotlib; pip install 'ga3c[compare]' would be right")


def _name(env: str) -> str:
    return re.sub(r"[^\w.-]+", "-", env)


def _search(options: TuneOptions, config: TrainConfig, spec: EnvSpec) -> tuple[Trials, int]:
    """Tries settings until the time is up or a signal comes; returns the exit code too."""
    from ga3c.build import build_model
    from ga3c.tune.trials import Bench, Interrupted, NotReadyError

    def fits(setting: Setting) -> bool:
        with contextlib.suppress(UsageError):
            validate(with_setting(config, setting), spec)
            return True
        return False

    start = setting_of(config)
    games = games_to_try(len(os.sched_getaffinity(0)), start)
    provide_descriptors(sum(sorted((actors for actors, _ in games), reverse=True)[:5]))
    trials = Trials(options.objective, options.max_lag)
    signals = Signals()

    def share() -> float:
        return (time.monotonic() - began) / (60 * options.minutes)

    with uninterrupted():  # as a run is that uses what is found
        model, _ = build_model(config, spec)
        began = time.monotonic()
        with signals.handled(), Bench(config, spec, model, signals.wait) as bench, _display() as show:
            for setting in search(trials, start, games, fits, share):
                show(trials, 60 * options.minutes * (1 - share()), report.in_words(setting))
                try:
                    trials.add(setting, bench.measure(setting, _WINDOWS))
                except Interrupted:
                    break
                except NotReadyError as late:
                    if not trials.windows:
                        raise
                    say_error(f"ga3c tune: {late}; it ends here with what it has measured")
                    break
    return trials, signals.exitcode


@contextlib.contextmanager
def _display() -> Iterator["_Show"]:
    """A live table on a terminal, else a line for each trial."""
    console = make_console()
    if not console.is_terminal:
        yield _Show(None)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield _Show(live)


class _Show:
    def __init__(self, live: Live | None) -> None:
        self._live = live

    def __call__(self, trials: Trials, left_s: float, now: str) -> None:
        if self._live is not None:
            self._live.update(report.live_table(trials, left_s, now), refresh=True)
            return
        best = f"; best so far {trials.mean(trials.ranking()[0]):,.0f} a second" if trials.windows else ""
        say(f"{max(0, left_s):4.0f} s left  {now}{best}")


def _leave(options: TuneOptions, config: TrainConfig, spec: EnvSpec, trials: Trials, folder: Path) -> None:
    start = setting_of(config)
    choice = trials.choice(start)
    hardware = machine()
    about = (
        f"{config.env}, network {config.network}, device {config.device}; {hardware['cpu']}, {hardware['cores']} cores,"
        f" GPU {hardware['gpu'] or 'none'}; policy lag at most {options.max_lag:g}"
    )
    found = {
        "objective": options.objective,
        "a_second": round(trials.mean(choice), 1),
        "standard_error": round(trials.error(choice), 1),
        "policy_lag": round(lag, 3) if math.isfinite(lag := trials.lag(choice)) else None,
        "env": config.env,
        "network": config.network,
        "device": config.device,
        "machine": hardware,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # What was said beside belongs to it: with another network or t_max other counts may be best.
        options_found = changes(config, spec) | choice._asdict()
        report.write_preset(folder / report.PRESET, config.preset, options_found, found)
        report.write_record(folder / report.RECORD, trials)
        report.write_table(folder / report.TABLE, trials, start, choice, options.objective, about)
        report.draw(folder / report.PICTURE, trials, start, choice, options.objective, about)
    except OSError as error:
        raise UsageError(f"--out: {folder} cannot be written to: {error.strerror}") from None
    gain = trials.mean(choice) / trials.mean(start)
    what = "the settings that the search began with" if choice == start else f"{gain:.2f} times what it began with"
    print(f"{len(trials.windows)} settings tried; best: {report.in_words(choice)}: {what}")
    print(f"all of them: {folder / report.TABLE}")
    print(f"train with: ga3c train {config.env} --preset {folder / report.PRESET}")
