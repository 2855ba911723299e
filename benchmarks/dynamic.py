"""Draws what ``--dynamic`` does from one actor, one predictor and one trainer on: training samples a second over time.

Runs ``ga3c train`` with each walk by turns, and once with the counts that ``ga3c train`` begins with by itself, as the
line to reach; as the GA3C paper's figure 2.
"""

import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from record import RESULTS, append, facts, prepare, run_benchmark
from training import run_train

from ga3c.errors import UsageError

_ONE = ["--actors", "1", "--predictors", "1", "--trainers", "1"]
_WALKS = {"climb": ["--dynamic", "climb", *_ONE], "paper": ["--dynamic", "paper", *_ONE], "fixed": []}
_STYLES = {"climb": ("#1d4e89", "-"), "paper": ("#c8553d", "--"), "fixed": ("#999999", ":")}
_NAMES = {"climb": "--dynamic climb", "paper": "--dynamic paper", "fixed": "the default counts, fixed"}
_LAST = 1 / 3  # of a run, in which a walk should have arrived


@dataclass(frozen=True)
class Options:
    """Compares the walks of --dynamic; other options, and the environment, go to each `ga3c train`."""

    minutes: float = 5.0
    """Of each run."""
    record: Path = RESULTS / "dynamic.jsonl"
    """JSONL file that a row is appended to; the picture is beside it."""


def main() -> None:
    """Entry point."""
    run_benchmark("dynamic", lambda: _main(sys.argv[1:]))


def _main(arguments: list[str]) -> None:
    options, rest = tyro.cli(Options, args=arguments, prog="dynamic.py", return_unknown_args=True)
    if not 0.5 <= options.minutes <= 600:
        raise UsageError(f"--minutes: got {options.minutes:g}; 0.5 to 600 would be right")
    prepare(options.record)
    row = {"measured": "dynamic", **facts(), "train_arguments": rest, "minutes": options.minutes}
    runs = {walk: _run([*rest, *words], options.minutes) for walk, words in _WALKS.items()}
    arrived = {walk: _arrived(lines) for walk, lines in runs.items()}
    for walk, figures in arrived.items():
        print(f"{_NAMES[walk]}: {figures}")
    append(options.record, {**row, "arrived": arrived, "runs": runs})
    caption = f"{row['machine']['cpu']}, {row['machine']['cores']} cores; commit {(row['commit'] or 'unknown')[:7]}"
    _draw(runs, options.record.with_suffix(".png"), caption)
    print(f"appended to {options.record}, with a picture beside it")


def _run(arguments: list[str], minutes: float) -> list[dict[str, Any]]:
    """The windows of one run, with what the picture shows."""
    names = ("time_s", "training_samples_per_s", "tps", "pps", "actors", "predictors", "trainers", "policy_lag_mean")
    with tempfile.TemporaryDirectory(prefix="ga3c-dynamic-") as temporary:
        folder = Path(temporary) / "run"
        run_train([*arguments, "--out", str(folder), "--minutes", str(minutes)])
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [{name: line[name] for name in names} for line in lines if line["kind"] == "rates"][1:-1]


def _arrived(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Median rate of the last third, and how often the counts changed in it."""
    last = lines[int(len(lines) * (1 - _LAST)) :]
    counts = [(line["actors"], line["predictors"], line["trainers"]) for line in last]
    return {
        "training_samples_per_s": statistics.median(line["training_samples_per_s"] for line in last),
        "changes_of_counts": sum(a != b for a, b in pairwise(counts)),
        "counts_at_the_end": counts[-1],
    }


def _draw(runs: dict[str, list[dict[str, Any]]], path: Path, caption: str) -> None:
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes, counts = figure.subplots(2, 1, sharex=True)
    for walk, lines in runs.items():
        colour, style = _STYLES[walk]
        minutes = [line["time_s"] / 60 for line in lines]
        rates = [line["training_samples_per_s"] for line in lines]
        axes.plot(minutes, rates, style, color=colour, label=_NAMES[walk])
        if walk != "fixed":
            counts.step(minutes, [line["actors"] for line in lines], style, color=colour, where="post")
            others = [line["predictors"] + line["trainers"] for line in lines]
            counts.step(minutes, others, style, color=colour, where="post", linewidth=0.8)
    axes.set_ylabel("training samples a second")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    counts.set_ylabel("actors (thick),\npredictors + trainers (thin)")
    counts.set_xlabel(f"minutes\n{caption}")
    counts.set_ylim(bottom=0)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
