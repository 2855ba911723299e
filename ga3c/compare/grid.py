"""``ga3c compare``: runs modes and networks on equal terms, keeps the record and draws it.

A comparison is a list of cells; each is a fresh ``ga3c train``. What is measured is on the disk before the next begins,
so that an interrupted comparison goes on where it stopped.
"""

import contextlib
import dataclasses
import datetime
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ga3c.compare.cells import Cell, Row, Runner, ScoreWatch, read_run, run_train
from ga3c.compare.figures import is_simulated, number, rate, warm
from ga3c.compare.options import Comparison
from ga3c.compare.plan import (
    Settings,
    Tuned,
    Variant,
    best_settings,
    grid_cells,
    mode_cells,
    trials,
    tuning_stages,
    variants,
)
from ga3c.compare.progress import GridProgress
from ga3c.compare.record import Record
from ga3c.errors import UsageError
from ga3c.machine import commit, machine, versions
from ga3c.signals import asking

_LATE_S = 300.0  # beyond its minutes, before a run is taken to hang: on a busy machine it takes minutes to start
# A run that is not warm is repeated with more minutes: up to _LONGEST_MIN or _MOST_TIMES its own, whichever is larger.
_LONGEST_MIN, _MOST_TIMES = 5.0, 4


_COLD = "it was not warm"


class Stopped(Exception):  # noqa: N818 - a wish, not an error
    """A signal asked the comparison to stop; ``exitcode`` is what the process ends with."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exitcode = 128 + number


def compare(what: Comparison, folder: Path, *, keep_runs: bool = False, runner: Runner = run_train) -> list[Row]:
    """Runs every cell that ``folder`` does not hold yet, and returns the rows of all.

    Args:
      what: the comparison, checked.
      folder: of the record; made if it is not there.
      keep_runs: keep the cells' run folders, with their checkpoints.
      runner: runs ``ga3c train``.

    Raises:
      UsageError: the folder cannot be written to, or holds another comparison.
      Stopped: a signal asked to end.
    """
    record = Record(folder)
    facts: Row = {**commit("benchmarks/results"), "machine": machine(), "versions": versions()}
    facts |= {"comparison": what.to_json(), "train_arguments": list(what.train_arguments)}
    record.check_goes_on_with(facts)
    with _signals():
        return _Runs(what, folder, record, facts, keep_runs, runner).all()


@contextmanager
def _signals() -> Iterator[None]:
    """A signal that asks to end raises ``Stopped`` in the main thread while it lasts."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    old = {number: signal.signal(number, stop) for number in asking()}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Runs:
    """The loop over the cells, as named steps."""

    def __init__(
        self, what: Comparison, folder: Path, record: Record, facts: Row, keep_runs: bool, runner: Runner
    ) -> None:
        self._what = what
        self._runs = folder / "runs"
        self._record = record
        self._facts = facts
        self._keep_runs = keep_runs
        self._runner = runner
        self._variants = variants(what.modes, what.device)
        self._cores = len(os.sched_getaffinity(0))
        self._measured: list[Row] = []
        self._progress: GridProgress

    def all(self) -> list[Row]:
        """Runs what is missing; returns the rows in the order of the comparison."""
        limits = self._what.until_score is not None
        with GridProgress(self._minutes_to_come(), are_limits=limits) as self._progress:
            if not limits:
                most = f"{longest_minutes(self._what.minutes_each):g} minutes"
                self._progress.say(
                    f"a run that has not become warm in its time is run again with twice as much, up to {most}"
                )
            tuned = self._tune() if self._what.tune else {}
            for repeat in range(1, self._what.repeats + 1):
                for cell in self._cells(repeat, tuned):
                    self._row(cell)
        with contextlib.suppress(OSError):
            self._runs.rmdir()  # unless runs are kept there
        return self._measured

    def _cells(self, repeat: int, tuned: Tuned) -> list[Cell]:
        what = self._what
        cells = mode_cells(self._variants, what.networks, repeat, what.seed, what.minutes_each, tuned)
        if what.grid:
            axes = {name: list(counts) for name, counts in what.grid.items()}
            cells += grid_cells(what.networks, what.device, repeat, what.seed, what.trial_minutes, axes)
        return cells

    def _stages(self, mode: str) -> list[dict[str, list[int]]]:
        return tuning_stages(mode, self._cores, self._what.fixed_options)

    def _minutes_to_come(self) -> list[float]:
        """Minutes of each cell that is not done yet, so far as can be known before the trials are."""
        done = sum(row["cell"]["kind"] == "trial" and row["error"] is None for row in self._record.rows)
        tried = [
            self._what.trial_minutes
            for variant in (self._variants if self._what.tune else ())
            for stage in self._stages(variant.mode)
            for _ in trials(variant, "", 0.0, stage, {})
            for _ in self._what.networks
        ]
        cells = [cell for repeat in range(1, self._what.repeats + 1) for cell in self._cells(repeat, {})]
        measured = {_place(row["cell"]) for row in self._record.rows if row["error"] is None}
        return tried[done:] + [cell.minutes for cell in cells if _place(dataclasses.asdict(cell)) not in measured]

    def _tune(self) -> Tuned:
        """The best counts of each variant with each network."""
        tuned: Tuned = {}
        for network in self._what.networks:
            for variant in self._variants:
                tuned[variant, network] = self._best(variant, network)
                counts = ", ".join(f"{name} {value}" for name, value in tuned[variant, network].items())
                self._progress.say(
                    f"best for {variant.mode} on {variant.device}, {network}: {counts or 'as they were'}"
                )
        return tuned

    def _best(self, variant: Variant, network: str) -> Settings:
        best: Settings = {}
        for stage in self._stages(variant.mode):
            cells = trials(variant, network, self._what.trial_minutes, stage, best)
            best = best_settings([self._row(cell) for cell in cells], best)
        return best

    def _row(self, cell: Cell) -> Row:
        """The row of a cell, measured now unless it was before."""
        row = self._record.done(cell)
        if row is None:
            self._progress.begin(cell.title, cell.minutes)
            row = self._measure(cell)
            self._record.append(row)
            self._progress.end(f"{cell.title}: {describe(row)}")
        self._measured.append(row)
        return row

    def _measure(self, cell: Cell) -> Row:
        """Runs the cell, and again for longer while it does not become warm; the row says what went wrong."""
        minutes, longest = cell.minutes, longest_minutes(cell.minutes)
        row = self._attempt(cell, minutes)
        while row["error"] == _COLD and minutes < longest:
            more = min(2 * minutes, longest)
            self._progress.say(f"{cell.title}: not warm after {60 * minutes:.0f} s; run again with {60 * more:.0f} s")
            minutes = more
            row = self._attempt(cell, minutes)
        if row["error"] == _COLD:
            row["error"] = f"it was not warm after {60 * minutes:.0f} s, the most that it is given"
        return row

    def _attempt(self, cell: Cell, minutes: float) -> Row:
        folder = self._runs / cell.folder
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt before
        row = self._facts | {
            "cell": dataclasses.asdict(cell),
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
            "load_average_before": round(os.getloadavg()[0], 2),
            "error": None,
            "minutes": minutes,  # of this run: those of the cell, or more
        }
        watch = self._score_watch(cell, folder)
        seed = self._what.seed + max(0, cell.repeat - 1)
        timed = dataclasses.replace(cell, minutes=minutes)
        arguments = timed.arguments(self._what.env, seed, list(self._what.train_arguments), folder)
        try:
            row["error"] = self._runner(arguments, 60 * minutes + _LATE_S, self._ticking(watch))
            if row["error"] is None:
                row |= self._read(folder, watch)
        except (OSError, ValueError, KeyError) as error:
            row["error"] = f"its run folder cannot be read: {type(error).__name__}: {error}"
        finally:
            if not self._keep_runs:
                shutil.rmtree(folder, ignore_errors=True)
        return row

    def _read(self, folder: Path, watch: ScoreWatch | None) -> Row:
        row = read_run(folder, self._what.warm_up_s)
        if watch is not None:
            watch()  # what was written since it last looked
            row["reached"] = watch.reached
        elif not warm(row):
            row["error"] = _COLD
        return row

    def _score_watch(self, cell: Cell, folder: Path) -> ScoreWatch | None:
        score = self._what.until_score
        return ScoreWatch(folder, score) if score is not None and cell.kind == "mode" else None

    def _ticking(self, watch: ScoreWatch | None) -> Callable[[], bool]:
        def look() -> bool:
            self._progress.tick()
            return watch is not None and watch()

        return look


def longest_minutes(minutes: float) -> float:
    """What a run of so many minutes is given at most to become warm."""
    return max(_LONGEST_MIN, _MOST_TIMES * minutes)


def _place(cell: dict[str, Any]) -> tuple[Any, ...]:
    """A cell without the counts that tuning gives it."""
    grid = tuple(cell["settings"].items()) if cell["kind"] == "grid" else ()
    return cell["kind"], cell["mode"], cell["device"], cell["network"], cell["repeat"], grid


def describe(row: Row) -> str:
    """What came of a cell, in a line."""
    if row["error"] is not None:
        return f"failed: {row['error'].splitlines()[-1]}"
    config = row["run"]["config"]
    words = [f"{config['actors']} actors x {config['envs_per_actor']} environments"]
    for name, unit in (("pps", "PPS"), ("training_samples_per_s", "samples/s")):
        figure = rate(row, name)
        if figure is not None:
            words.append(f"{unit} {number(figure)}")
    if row.get("reached"):
        words.append(f"score reached after {row['reached']['time_s'] / 60:.1f} minutes")
    elif "reached" in row:
        words.append("score not reached")
    if is_simulated(row):
        words.append("simulated device")
    return ", ".join(words)


def failures(rows: Sequence[Row]) -> list[Row]:
    """The cells that failed; a trial that fails only says that its counts are no good."""
    return [row for row in rows if row["error"] is not None and row["cell"]["kind"] != "trial"]


def check_folder(folder: Path) -> None:
    """Refuses a file.

    Raises:
      UsageError: ``folder`` is one.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out: {folder} is no folder; a new one, or that of a comparison, would be right")
