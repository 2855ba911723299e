"""Runs ``ga3c train`` as a user runs it, and reads from its metrics.jsonl how fast it was once it was warm."""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import ROOT, BenchmarkError, spread

from ga3c.compare.cells import windows_of
from ga3c.errors import UsageError

WINDOW_S = 4.0  # of ga3c's "rates" lines
_START_S = 4.0  # that a run may take to start; where it takes less, windows beyond those asked for are left out
_KEPT = (
    "pps", "tps", "training_samples_per_s", "policy_lag_mean", "prediction_batch_mean", "training_batch_mean",
    "actor_wait_share", "predictor_wait_share", "trainer_wait_share",
)  # fmt: skip

Run = dict[str, Any]


def train_run(
    train_arguments: list[str],
    warm_up_s: float,
    seconds: float,
    beside: Callable[[subprocess.Popen[str]], None] | None = None,
) -> tuple[Run, Run]:
    """Runs ``ga3c train`` once; returns the figures of ``seconds`` of it, and its resolved settings.

    ``beside`` is called with the process, in a thread of its own, and should return when that ends.

    Raises:
      UsageError: it would not run so.
      BenchmarkError: it failed, or was not warm in time.
    """
    with tempfile.TemporaryDirectory(prefix="ga3c-throughput-") as temporary:
        folder = Path(temporary) / "run"
        minutes = (_START_S + warm_up_s + seconds + 2 * WINDOW_S) / 60
        run_train([*train_arguments, "--out", str(folder), "--minutes", f"{minutes:.4f}"], beside)
        settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    settings["config"]["out"] = None  # a folder of this machine, gone by now
    del settings["machine"], settings["versions"]  # the row has them
    windows = _warm_windows([line for line in lines if line["kind"] == "rates"], warm_up_s)
    windows = windows[: math.ceil(seconds / WINDOW_S)]
    if not windows:
        raise BenchmarkError(f"ga3c train was not yet warm after {60 * minutes:.0f} s; a longer --seconds may do")
    return series(settings["config"]["mode"], windows), settings


def run_train(arguments: list[str], beside: Callable[[subprocess.Popen[str]], None] | None = None) -> None:
    """Runs the repository's own ``ga3c train``.

    Raises:
      UsageError: it would not run so.
      BenchmarkError: it failed.
    """
    command = [sys.executable, "-m", "ga3c", "train", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        if beside is not None:
            threading.Thread(target=beside, args=(process,)).start()
        said = process.communicate()[1].strip().removeprefix("ga3c: ")
    if process.returncode == 2:
        raise UsageError(said)
    if process.returncode:
        raise BenchmarkError(f"ga3c train ended with {process.returncode}: {said}")


def _warm_windows(rates: list[Run], warm_up_s: float) -> list[Run]:
    """The windows that count, with the figures that the record keeps."""
    return [
        {"seconds": window["seconds"], **{name: window.get(name) for name in _KEPT}}
        for window in windows_of(rates, warm_up_s)
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
