"""What a user can say about a comparison, its checks, and the comparison that it makes."""

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ga3c.choices import check_network, check_states, gpu_driver_is_there
from ga3c.compare.plan import MODES, variants
from ga3c.config import TrainConfig, validate_numbers
from ga3c.envs import EnvSpec, env_spec
from ga3c.errors import UsageError, nearest
from ga3c.options import parse

_QUICK_S = 255.0  # for all cells of --quick: the pictures, and a slow start, have the rest of 5 minutes
_START_S = 8.0  # that a run takes to start and to end, beside its minutes
_OWN = ("mode", "network", "out", "resume", "minutes", "total_steps", "seed", "device", "env")


@dataclass(frozen=True)
class CompareOptions:
    """Runs modes and networks on equal terms, and draws what each gains and where its time goes.

    Options that are not listed here go to each `ga3c train`. The same --out goes on with an interrupted comparison.
    """

    modes: str | None = None
    """Of a3c, a2c and ga3c, with commas; default all, with --quick a3c,ga3c."""
    networks: str | None = None
    """Of `ga3c networks`, with commas; default small,nature,large, with --quick small,large; mlp for vector states."""
    minutes_each: float | None = None
    """Training minutes of each run, warm-up included; default 1. With --until-score its limit, default 60."""
    repeats: int | None = None
    """Runs of each mode with each network; default 3, with --quick 2."""
    env: str = "Pong-v5"
    """As `ga3c train` takes it."""
    out: Path | None = None
    """Folder for record, report and pictures; default runs/compare-<env>."""
    device: str = "auto"
    """auto takes CUDA where there is one. A3C is measured on the CPU too."""
    seed: int = 1
    """Of the order of runs, and of the first repeat; each next repeat trains with the next seed."""
    warm_up_s: float | None = None
    """Seconds from a run's first steps on that do not count; default 8, with --quick 4."""
    until_score: float | None = None
    """A run ends once the mean return of its last 100 games is this."""
    tune: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Find the counts with which each mode trains on most samples a second, by short trials, and use them."""
    grid: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Measure mode ga3c for combinations of actors, predictors and trainers too (chart 3)."""
    grid_actors: str | None = None
    """N_A of the grid, with commas; default 1, 2, 4 and 8 a core."""
    grid_predictors: str = "1,2"
    """N_P of the grid, with commas."""
    grid_trainers: str = "1,2"
    """N_T of the grid, with commas."""
    trial_minutes: float = 0.4
    """Training minutes of a trial, and of a point of the grid, warm-up included."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Two modes, two networks, two repeats, in less than 5 minutes. Sets the defaults of the rest."""
    published: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Draw the GA3C paper's own figures beside the speed-up."""
    plot_only: tuple[Path, ...] = ()
    """Folders of comparisons: draw their record again, laid over each other if there are several, and run nothing."""
    keep_runs: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep each run's folder, with its checkpoints, in the folder runs of --out."""


@dataclass(frozen=True)
class Comparison:
    """A checked comparison, every default filled in; see ``CompareOptions``.

    Attributes:
      device: ``cpu``, ``cuda``, or whatever the user named; never ``auto``.
      grid: values by option of ``ga3c train``; None without a grid.
      train_arguments: handed on to every ``ga3c train``.
      fixed_options: those of them, by name, that the user chose: tuning leaves them alone.
    """

    env: str
    modes: tuple[str, ...]
    networks: tuple[str, ...]
    device: str
    repeats: int
    minutes_each: float
    trial_minutes: float
    warm_up_s: float
    seed: int
    until_score: float | None = None
    tune: bool = False
    grid: dict[str, tuple[int, ...]] | None = None
    train_arguments: tuple[str, ...] = ()
    fixed_options: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values that two calls on one folder must share, beside ``train_arguments``; more repeats do no harm."""
        left_out = ("repeats", "train_arguments", "fixed_options")
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}
        plain: dict[str, Any] = json.loads(json.dumps(values))  # as a row of the record gives them back
        return plain


def resolve(options: CompareOptions, train_arguments: list[str]) -> Comparison:
    """Fills in the defaults and checks what can be checked before anything runs.

    Raises:
      UsageError: with the first option that is wrong.
    """
    spec = _check_train_arguments(options, train_arguments)
    quick, until = options.quick, options.until_score
    modes = _names("modes", options.modes or ("a3c,ga3c" if quick else ",".join(MODES)))
    for mode in modes:
        if mode not in MODES:
            raise UsageError(f"--modes: got {mode!r}{nearest(mode, list(MODES))}; of {', '.join(MODES)} would be right")
    networks = _names("networks", options.networks or _default_networks(spec, quick))
    for network in networks:
        check_network(network)
        check_states(network, spec.observation_shape)
    repeats = _given(options.repeats, 2 if quick else 3)
    device = _device(options.device)
    cells = len(variants(modes, device)) * len(networks) * repeats
    minutes = (max(16.0, _QUICK_S / cells - _START_S) / 60) if quick else 60.0 if until is not None else 1.0
    comparison = Comparison(
        env=options.env, modes=modes, networks=networks, device=device, repeats=repeats,
        minutes_each=_given(options.minutes_each, round(minutes, 4)), trial_minutes=options.trial_minutes,
        warm_up_s=_given(options.warm_up_s, 4.0 if quick else 8.0), seed=options.seed, until_score=until,
        tune=options.tune, grid=_grid(options) if options.grid else None,
        train_arguments=tuple(train_arguments), fixed_options=_said(train_arguments),
    )  # fmt: skip
    _check_numbers(comparison)
    from ga3c.networks import build_network  # last, since torch takes its time to load

    for network in networks:
        build_network(network, spec.observation_shape, spec.num_actions, "uniform")
    return comparison


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _names(option: str, text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"--{option}: got {text!r}; each name once, with commas between them, would be right")
    return names


def _default_networks(spec: EnvSpec, quick: bool) -> str:
    if not spec.is_image:
        return "mlp"
    return "small,large" if quick else "small,nature,large"


def _device(name: str) -> str:
    """``auto`` by its name, so that the record says what it was."""
    if name.startswith("simulated"):
        return name  # ga3c train knows these
    if name == "cpu" or (name == "auto" and not gpu_driver_is_there()):
        return "cpu"
    from ga3c.device import resolve_device

    device = resolve_device(name)
    return device.type if name == "auto" else name


def _grid(options: CompareOptions) -> dict[str, tuple[int, ...]]:
    cores = len(os.sched_getaffinity(0))
    actors = options.grid_actors or ",".join(str(cores * n) for n in (1, 2, 4, 8))
    said = {"actors": actors, "predictors": options.grid_predictors, "trainers": options.grid_trainers}
    grid: dict[str, tuple[int, ...]] = {}
    for name, text in said.items():
        counts = _names(f"grid-{name}", text)
        if not all(count.isdecimal() and int(count) > 0 for count in counts):
            raise UsageError(f"--grid-{name}: got {text!r}; counts from 1 on, with commas between them, would be right")
        grid[name] = tuple(sorted(map(int, counts)))
    return grid


def _said(train_arguments: list[str]) -> tuple[str, ...]:
    """The options that are given, by their names in ``TrainConfig``."""
    words = [word.partition("=")[0] for word in train_arguments if word.startswith("--")]
    return tuple(word.removeprefix("--").removeprefix("no-").replace("-", "_") for word in words)


def _check_train_arguments(options: CompareOptions, train_arguments: list[str]) -> EnvSpec:
    """What can be said of ``ga3c train``'s options now; the rest of it ``ga3c train`` says itself.

    Raises:
      UsageError: one that is for the comparison to choose, or wrong by itself.
    """
    for name in _said(train_arguments):
        if name in _OWN:
            hint = "; --minutes-each would be right" if name == "minutes" else ""
            raise UsageError(f"--{name.replace('_', '-')} is the comparison's own to choose; leave it out{hint}")
    said = parse(TrainConfig, train_arguments, "ga3c train")
    if said.env != TrainConfig.env:
        raise UsageError(f"got {said.env!r}; --env {said.env} would be right")
    validate_numbers(said)
    return env_spec(dataclasses.replace(said, env=options.env).env_config())


def _check_numbers(c: Comparison) -> None:
    if c.grid and "ga3c" not in c.modes:
        raise UsageError("--grid: it is of mode ga3c, which is not among --modes")
    shortest = (c.warm_up_s + 12) / 60  # a start, a window, and the last one, which does not count
    least = {"repeats": 1, "seed": 0, "warm_up_s": 0, "minutes_each": 0.01 if c.until_score is not None else shortest}
    if c.tune or c.grid:
        least["trial_minutes"] = shortest
    for name, bound in least.items():
        value = getattr(c, name)
        if not bound <= value < math.inf:
            why = f" with {c.warm_up_s:g} s of warm-up" if bound == shortest else ""
            said = f"--{name.replace('_', '-')}: got {value:g}"
            raise UsageError(f"{said}; at least {math.ceil(bound * 100) / 100:g}{why} would be right")
    if c.until_score is not None and not math.isfinite(c.until_score):
        raise UsageError(f"--until-score: got {c.until_score}; a return, as 18, would be right")
