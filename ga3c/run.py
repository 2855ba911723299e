"""One training run around whichever mode: its folder, budget, signals, checkpoints, metrics and display."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ga3c
from ga3c.a2c import A2c
from ga3c.a3c import A3c
from ga3c.build import build_model, normalise, settings_kept
from ga3c.checkpoint import (
    Checkpoint,
    Progress,
    channels_last_in,
    load_network,
    load_optimiser,
    read_newest,
    score_of,
    snapshot,
    write_checkpoint,
)
from ga3c.config import TrainConfig
from ga3c.curves import is_simulated
from ga3c.display import Display, make_display
from ga3c.envs import EnvSpec
from ga3c.errors import UsageError
from ga3c.events import Events, Run
from ga3c.folder import list_checkpoints, own_folder, write_settings
from ga3c.forkserver import ForkServer
from ga3c.ga3c import Ga3c
from ga3c.machine import machine, versions
from ga3c.metrics import RETURNS_KEPT, Meters
from ga3c.metrics_writer import MetricsWriter
from ga3c.model import Model
from ga3c.recorder import Recorder
from ga3c.sampler import Sampler
from ga3c.signals import Signals
from ga3c.surroundings import Surroundings, shown
from ga3c.system import Context, System

_SYSTEMS: dict[str, Callable[[Context], System]] = {"ga3c": Ga3c, "a3c": A3c, "a2c": A2c}
_TICK_S = 0.25
_TELL_S, _TELL_AT_END_S = 1.0, 10.0  # for callbacks, between which signals are heard; one that has begun is waited for
_WINDOW_S = 4.0  # between "rates" lines; at least every 5 s
_SUSPENDED_S = 1.0  # by SIGSTOP or Ctrl-Z; a sleeping computer's clock stands still by itself
_PAUSE_S = 1.0  # for an update to end before a checkpoint is taken


@settings_kept()
def train(
    config: TrainConfig,
    spec: EnvSpec,
    server: ForkServer | None = None,
    sampler: Sampler | None = None,
    events: Events | None = None,
    *,
    quiet: bool = False,
    surroundings: Surroundings | None = None,
) -> Run:
    """Trains until the budget is used up, a signal comes, or a callback of ``events`` says so.

    Call it through ``launch``. ``config`` is validated; ``server`` and ``sampler`` are as in ``Context``; ``quiet``
    shows nothing; ``surroundings`` are those from before user code was run (None takes those of now).

    Raises:
      UsageError: before anything was written; or later, if the mistake only shows in a worker.
      WorkerError: a role failed; a checkpoint of what was learnt before is left.
    """
    surroundings = surroundings or Surroundings.now()
    if config.resume is not None:
        spec = dataclasses.replace(spec, channels_last=_channels_last(config.resume, spec))
    model, facts = build_model(config, spec)
    progress, notes = Progress(), list[str]()
    with model.changing():
        if config.resume is not None:
            progress, unusable = _restore(config.resume, model)
            notes = [f"skipped: {one}" for one in unusable]
        elif note := normalise(model.network, config, spec, quiet=quiet):
            notes = [note]
    facts = {
        "config": config.to_json(),
        "protocol": spec.protocol,
        "game": spec.game,
        **facts,
        "machine": machine(),
        "versions": versions(),
    }
    events = events or Events()
    show = make_display(_title(config), on_cpu=facts["device"] == "cpu", quiet=quiet)
    surroundings.restore_umask()
    with own_folder(config, surroundings.folder) as folder:
        try:
            write_settings(folder, config, facts)
            metrics = MetricsWriter(folder, None if config.resume is None else progress.env_steps)
        except OSError as error:
            option = "--out" if config.resume is None else "--resume"
            raise UsageError(f"{option}: {shown(folder)} cannot be written to: {error.strerror}") from None
        signals = Signals()
        with signals.handled(), metrics as writer, show as display:
            for line in [*_header(config, spec, facts, folder, progress), *(f"  {note}" for note in notes)]:
                display.say(line)
            session = _Session(
                config, spec, model, folder, progress, writer, display, signals, events, server, sampler, surroundings
            )
            return session.run()


class _Session:
    """The loop of one process, as named steps."""

    def __init__(
        self,
        config: TrainConfig,
        spec: EnvSpec,
        model: Model,
        folder: Path,
        progress: Progress,
        writer: MetricsWriter,
        display: Display,
        signals: Signals,
        events: Events,
        server: ForkServer | None,
        sampler: Sampler | None,
        surroundings: Surroundings,
    ) -> None:
        self._config = config
        self._model = model
        self._folder = folder
        self._writer = writer
        self._display = display
        self._signals = signals
        self._events = events
        self._meters = Meters(
            spec.frames_per_step,
            env_steps=progress.env_steps,
            updates=progress.updates,
            time_s=progress.time_s,
            returns=progress.returns,
            events=events,
        )
        self._schedule = config.schedule()
        make = _SYSTEMS[config.mode]
        self._system = make(
            Context(config, spec, model, self._meters, self._learning_rate, display.say, progress, server, sampler)
        )
        self._recorder = Recorder(folder, config.record_every, display.say, surroundings.variables)
        self._first_update = self._written = progress.updates  # of the model; and of the newest checkpoint
        self._resumed_steps = progress.env_steps

    def run(self) -> Run:
        """Whatever ends it, what was learnt is written."""
        with contextlib.ExitStack() as leave:  # from the last to the first, whatever fails on the way
            leave.callback(self._checkpoint)
            leave.callback(self._write_last_metrics)
            leave.callback(self._recorder.close)
            leave.callback(self._system.stop)
            self._system.start()
            self._loop()
        if self._system.failure is not None:
            raise self._system.failure.error()
        if not self._signals.exitcode:
            self._events.tell(_TELL_AT_END_S)  # what has happened since it was asked to stop
        self._say_end()
        meters = self._meters
        return Run(
            self._folder,
            self._signals.exitcode,
            meters.env_steps,
            meters.updates,
            meters.time_s,
            meters.episode_return_mean,
        )

    def _write_last_metrics(self) -> None:
        self._write_metrics()
        self._write([self._totals()])

    def _say_end(self) -> None:
        code = self._signals.exitcode
        command = f"ga3c {'eval' if code == 0 else 'train --resume'} {shown(self._folder)}"
        left = f"; {'score it' if code == 0 else 'resume'} with: {command}"
        if not list_checkpoints(self._folder):
            learnt = self._meters.updates > self._first_update and not is_simulated(self._config.device)
            why = "no checkpoint could be written" if learnt else "nothing was learnt"
            left = f"; {why}, so there is nothing to resume"
        self._display.say(f"{'done' if code == 0 else 'stopped'} after {self._meters.env_steps:,} steps{left}")
        best = max(list_checkpoints(self._folder), key=score_of, default=None)
        if best is not None and (score := score_of(best)) > -math.inf:
            self._display.say(f"best mean of {RETURNS_KEPT} games: {score:.4g}, kept in {shown(best)}")
        if self._events.lost:
            self._display.say(f"the callbacks were slower than the training: {self._events.lost:,} events were dropped")

    def _loop(self) -> None:
        windows = _Every(_WINDOW_S)
        checkpoints = _Every(self._config.checkpoint_every)
        last_tick, learning = time.monotonic(), False  # the first update is shown at once
        while not (self._done >= 1.0 or self._system.failure):
            if self._signals.wait(_TICK_S):
                return
            last_tick, stood_still_s = time.monotonic(), time.monotonic() - last_tick - _TICK_S
            if self._signals.was_continued() and stood_still_s > _SUSPENDED_S:
                self._meters.suspended(stood_still_s)
                self._display.say(f"the run stood still for {stood_still_s:.0f} s: it was suspended, and goes on")
            self._system.tick()
            if (refusal := self._model.refusal()) is not None:
                self._display.say(f"forward passes are not recorded as CUDA graphs, which would be faster: {refusal}")
            if not self._events.tell(_TELL_S):
                return
            begins = not learning and self._meters.updates > self._first_update
            if begins or windows.due():
                self._write_metrics()
                learning = learning or begins
            if checkpoints.due():
                self._checkpoint()
            self._recorder.tick()

    @property
    def _done(self) -> float:
        """Share of the budget that is used up, 0 without one."""
        config, meters = self._config, self._meters
        steps = meters.env_steps / config.total_steps if config.total_steps else 0.0
        minutes = meters.time_s / 60 / config.minutes if config.minutes else 0.0
        return max(steps, minutes)

    def _learning_rate(self) -> float:
        """Of the next update."""
        return self._schedule.rate(self._meters.env_steps, self._meters.time_s)

    def _write_metrics(self) -> None:
        rates = self._meters.rates()
        self._write([*self._meters.take_episodes(), rates])
        done = self._done
        limited = self._config.total_steps or self._config.minutes
        left_s = None
        if limited and done > 0:
            left_s = max(0.0, self._meters.time_s * (1 / done - 1))
        self._display.show(rates, min(done, 1.0) if limited else None, left_s)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        """Appends to the metrics; a full disk is said, and tried again next time."""
        try:
            self._writer.write(lines)
        except OSError as error:
            self._display.say(f"metrics not written: {error}; they are kept, and tried again")

    def _totals(self) -> dict[str, Any]:
        """What became of every step of this process: the last line of its metrics."""
        while True:  # a thread that is late may count while it is read
            counted = self._meters.env_steps, self._meters.samples
            account = self._system.account()
            if counted == (self._meters.env_steps, self._meters.samples):
                break
        env_steps, samples = counted
        return {
            "kind": "totals",
            "time_s": round(self._meters.time_s, 3),
            "env_steps": env_steps,
            "resumed_steps": self._resumed_steps,
            "samples_trained": samples,
            "samples_dropped": account.dropped,
            "samples_in_flight": account.in_flight,
        }

    def _checkpoint(self) -> None:
        """Writes one if there is anything new; a full disk is said, and tried again next time."""
        if self._model.version == self._written or is_simulated(self._config.device):
            return
        meters = self._meters
        try:
            with self._model.paused(_PAUSE_S):
                returns = meters.returns
                score = sum(returns) / len(returns) if len(returns) == RETURNS_KEPT else None
                progress = Progress(meters.env_steps, self._model.version, meters.time_s, score, returns)
                tensors = snapshot(self._model.network, self._model.optimiser)
            write_checkpoint(self._folder, self._config, progress, tensors, self._config.keep)
            self._written = progress.updates
        except (OSError, TimeoutError) as error:
            self._display.say(f"checkpoint not written: {error}; those before it are kept")


class _Every:
    """Says when an interval has passed again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def _channels_last(folder: Path, spec: EnvSpec) -> bool | None:
    """As ``channels_last_in``, of the checkpoint that is resumed."""
    return read_newest(folder, lambda checkpoint, _: channels_last_in(checkpoint, spec.observation_shape))[0]


def _restore(folder: Path, model: Model) -> tuple[Progress, list[str]]:
    """Loads the newest checkpoint that is whole into ``model``; says what is wrong with those after it."""

    def use(checkpoint: Checkpoint, path: Path) -> Progress:
        load_network(checkpoint, model.network, path)
        load_optimiser(checkpoint, model.optimiser, path)
        model.version = checkpoint.progress.updates
        return checkpoint.progress

    return read_newest(folder, use)


def _title(config: TrainConfig) -> str:
    """What every line and panel of the run's figures is about."""
    return f"ga3c  {config.env}" + ("  SIMULATED DEVICE" if is_simulated(config.device) else "")


def _header(config: TrainConfig, spec: EnvSpec, run: dict[str, Any], folder: Path, progress: Progress) -> Iterator[str]:
    yield f"ga3c {ga3c.__version__}: {config.env} on {spec.backend}, mode {config.mode}, preset {config.preset}"
    yield f"  protocol: {spec.protocol}"
    computes = run["precision"] or "which only waits: actions are random, nothing is learnt"
    yield (
        f"  network {config.network}: {run['parameters']:,} parameters, {run['mflop_per_state']:g} MFLOP a state;"
        f" {run['device']}, {computes}"
    )
    yield f"  {_counts(config)}"
    yield f"  {config.optimiser}, learning rate {config.learning_rate:g}; run folder {shown(folder)}"
    if config.resume is not None:
        yield f"  resumed at {progress.env_steps:,} steps, {progress.updates:,} updates, {progress.time_s:.0f} s"


def _counts(config: TrainConfig) -> str:
    """The counts that the mode uses, in words."""
    if config.mode == "a2c":
        batch = config.envs_per_actor * config.t_max
        return f"{config.envs_per_actor} environments in lock step; t_max {config.t_max}, batch {batch}"
    if config.mode == "a3c":
        return f"{config.actors} workers, an environment and a replica each; t_max {config.t_max}, its batch too"
    return (
        f"{config.actors} actors x {config.envs_per_actor} environments, {config.predictors} predictors,"
        f" {config.trainers} trainers; t_max {config.t_max}, training batch from {config.min_training_batch},"
        f" prediction batch to {config.max_prediction_batch}"
    )
