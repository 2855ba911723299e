"""Runs ``ga3c train`` as a user runs it, and reads from its metrics.jsonl how fast it was once it was warm."""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import standing_still
from record import ROOT, BenchmarkError, spread

from ga3c.compare.cells import windows_of
from ga3c.errors import UsageError

WINDOW_S = 4.0  # of ga3c's "rates" lines
_START_S = 4.0  # that a run may take to start; where it takes less, windows beyond those asked for are left out
_POLL_S = 0.02
_RATES = ("pps", "tps", "training_samples_per_s")
_KEPT = (
    *_RATES, "policy_lag_mean", "prediction_batch_mean", "training_batch_mean",
    "actor_wait_share", "predictor_wait_share", "trainer_wait_share",
)  # fmt: skip

Run = dict[str, Any]


def train_run(
    train_arguments: list[str],
    warm_up_s: float,
    seconds: float,
    beside: Callable[[int], None] | None = None,
    between: Callable[[], None] | None = None,
) -> tuple[Run, Run]:
    """Runs ``ga3c train`` once; returns the figures of ``seconds`` of it, and its resolved settings.

    Args:
      train_arguments: of ``ga3c train``.
      warm_up_s: seconds that do not count.
      seconds: that do.
      beside: called with the learner's process id, again and again while it runs.
      between: called after each of the run's windows, which stands still for it; that time does not count. It should
        take well under a second: a run that stands still for longer takes it for a suspension, and the windows that
        this touches are left out.

    Raises:
      UsageError: it would not run so.
      BenchmarkError: it failed, or was not warm in time.
    """
    with tempfile.TemporaryDirectory(prefix="ga3c-throughput-") as temporary:
        folder = Path(temporary) / "run"
        minutes = (_START_S + warm_up_s + seconds + 2 * WINDOW_S) / 60
        pauses = _Pauses(folder / "metrics.jsonl", between)

        def _beside(learner: int) -> None:
            if beside is not None:
                beside(learner)
            pauses.look(learner)

        run_train([*train_arguments, "--out", str(folder), "--minutes", f"{minutes:.4f}"], _beside)
        settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        rates = _rates(folder / "metrics.jsonl")
    settings["config"]["out"] = None  # a folder of this machine, gone by now
    del settings["machine"], settings["versions"]  # the row has them
    windows = _warm_windows(pauses.left_out(windows_of(rates, warm_up_s)))
    windows = windows[: math.ceil(seconds / WINDOW_S)]
    if not windows:
        raise BenchmarkError(f"ga3c train was not yet warm after {60 * minutes:.0f} s; a longer --seconds may do")
    return series(settings["config"]["mode"], windows), settings


class _Pauses:
    """Lets a run stand still after each of its windows, and knows for how long it did."""

    def __init__(self, metrics: Path, work: Callable[[], None] | None) -> None:
        """``metrics`` is the run's metrics.jsonl, ``work`` what is done meanwhile; without it nothing is."""
        self._metrics = metrics
        self._work = work
        self._size = 0  # of the file, when it was last read
        self._stood_s: dict[int, float] = {}  # by the number of windows before

    def look(self, learner: int) -> None:
        """Does the work if the run has closed a window since the last call."""
        if self._work is None or not self._metrics.exists():
            return
        if (size := self._metrics.stat().st_size) == self._size:
            return
        self._size = size
        number = len(_rates(self._metrics))
        if number == 0 or number in self._stood_s:
            return
        with standing_still(learner):
            began = time.monotonic()
            self._work()
            self._stood_s[number] = time.monotonic() - began

    def left_out(self, windows: list[Run]) -> list[Run]:
        """The windows with the lengths and rates that they had without the pauses.

        Not those of a pause that the run took for a suspension: it has left the time out itself. What its roles spent
        their time on it does not say then.
        """
        return [
            self._without(window, self._stood_s.get(number, 0.0))
            for number, window in enumerate(windows)
            if self._work is None or window["role_seconds"]
        ]

    def _without(self, window: Run, stood_s: float) -> Run:
        seconds = max(window["seconds"] - stood_s, 1e-3)  # it may have been due when the pause ended
        rates = {name: window[name] * window["seconds"] / seconds for name in _RATES if window.get(name) is not None}
        return window | rates | {"seconds": round(seconds, 3)}


def _rates(metrics: Path) -> list[Run]:
    """The "rates" lines of a run's metrics; a line that is still being written is none."""
    whole, _, _ = metrics.read_text(encoding="utf-8").rpartition("\n")
    lines = [json.loads(line) for line in whole.splitlines()]
    return [line for line in lines if line["kind"] == "rates"]


def run_train(arguments: list[str], beside: Callable[[int], None] | None = None) -> None:
    """Runs the repository's own ``ga3c train``; ``beside`` is called with its process id, again and again meanwhile.

    Raises:
      UsageError: it would not run so.
      BenchmarkError: it failed.
    """
    command = [sys.executable, "-m", "ga3c", "train", *arguments]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as file,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file) as process,
    ):
        try:
            while beside is not None and process.poll() is None:
                beside(process.pid)
                time.sleep(_POLL_S)
            process.wait()
        except BaseException:
            process.kill()
            raise
        file.seek(0)
        said = file.read().strip().removeprefix("ga3c: ")
    if process.returncode == 2:
        raise UsageError(said)
    if process.returncode:
        raise BenchmarkError(f"ga3c train ended with {process.returncode}: {said}")


def _warm_windows(windows: list[Run]) -> list[Run]:
    """The windows that count, with the figures that the record keeps."""
    return [
        {"seconds": window["seconds"], **{name: window.get(name) for name in _KEPT}}
        for window in windows
        if window["warm"]
    ]


def series(system: str, windows: list[Run]) -> Run:
    """The windows of one run and the spread of their rates."""
    rates = ("pps", "training_samples_per_s")
    spreads = {name: spread([window[name] or 0.0 for window in windows]) for name in rates}
    return {"system": system, **spreads, "windows": windows}


def say(number: int, run: Run) -> None:
    """Prints the figures of one run of a repeat."""
    pps, samples = run["pps"], run["training_samples_per_s"]
    parts = [f"PPS {in_words(pps)}", f"samples/s {in_words(samples)}" if samples != pps else "samples/s the same"]
    for name, words in (
        ("prediction_batch_mean", "prediction batch {:.1f}"),
        ("training_batch_mean", "training batch {:.1f}"),
        ("policy_lag_mean", "lag {:.2f}"),
        ("actor_wait_share", "actors wait {:.0%}"),
    ):
        figures = [window[name] for window in run["windows"] if window.get(name) is not None]
        if figures:
            parts.append(words.format(statistics.median(figures)))
    print(f"repeat {number}  {run['system']}: {'; '.join(parts)}; {len(run['windows'])} windows", flush=True)


def in_words(figures: dict[str, float]) -> str:
    """Median, extremes and quartiles."""
    extremes = f"{figures['min']:,.0f} to {figures['max']:,.0f}"
    return f"{figures['median']:,.0f} ({extremes}, half in {figures['q1']:,.0f} to {figures['q3']:,.0f})"
