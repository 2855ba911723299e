"""Trains for long while actors are killed, and checks that nothing leaks, drifts or is lost; or ends many runs.

It looks at the processes from outside, as an operator would: resident memory, descriptors and threads of the learner,
memory of the actors, every few seconds. What the run counted is read from its metrics.jsonl: the sums of its last line
must agree, and its throughput must not fall. ``--interrupts`` asks short runs to stop, at instants from start to end;
``--crashes`` kills a run without warning, and resumes it.
"""

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from control import Control, control
from crashes import crash
from interrupts import interrupt
from processes import actors, memory_mb, standing_still
from record import RESULTS, ROOT, BenchmarkError, append, facts, prepare, run_benchmark, spread

from ga3c.errors import UsageError

_LOOK_EVERY_S = 5.0
_SETTLED = 1 / 6  # of the run, which does not count for slopes: memory grows to its size, threads start
_TREND_MINUTES = 10.0  # of a run at least: trends and thirds of less are noise

Sample = dict[str, float]


@dataclass(frozen=True)
class Options:
    """Trains for long, with kills, and writes a report."""

    env: str = "Pong-v5"
    """As in `ga3c train`, with its defaults."""
    minutes: float = 30.0
    """Of training."""
    kill_every: float = 5.0
    """Seconds between kills of an actor drawn at random, on average; 0 kills none."""
    seed: int = 1
    """Of the kills."""
    suspend_s: float = 0.0
    """Seconds for which the whole run is suspended (SIGSTOP, SIGCONT) when half of its time is over."""
    interrupts: int = 0
    """Instead of all that: this many short runs, each ended by SIGINT or SIGTERM at a random instant."""
    crashes: int = 0
    """Instead of all that: this many kills of a run, the learner alone or all of it, which is resumed each time."""
    record: Path = RESULTS / "soak.jsonl"
    """JSONL file that a row is appended to."""


def main() -> None:
    """Entry point; the exit code is 1 if something was lost, leaked or drifted."""
    run_benchmark("soak", lambda: _main(tyro.cli(Options, prog="soak.py")))


def _main(options: Options) -> int:
    counts = (options.kill_every, options.suspend_s, options.interrupts, options.crashes)
    if not 0.5 <= options.minutes < math.inf or not all(0 <= count < math.inf for count in counts):
        raise UsageError("--minutes from 0.5 and other numbers from 0 would be right")
    prepare(options.record)
    row = {"measured": "soak", **facts(), "options": {**vars(options), "record": None}}
    if options.interrupts:
        return _finish(options.record, row, interrupt(options.env, options.interrupts, options.seed))
    if options.crashes:
        return _finish(options.record, row, crash(options.env, options.crashes, options.seed))
    with tempfile.TemporaryDirectory(prefix="ga3c-soak-") as temporary:
        folder = Path(temporary) / "run"
        samples, kills, said = _run(options, folder)
        said = said.replace(str(folder), "run")
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    replaced = said.count("its unfinished rollout dropped")
    report = _report(samples, lines, kills, options.minutes) | {
        "replacements_said": replaced,
        "last_words": said.splitlines()[-3:],
    }
    report["holds"] |= {
        "each actor that was killed was replaced, and no other": replaced == kills,
        "a suspension is said, and takes no figure along": (
            ("the run stood still" in said) == (options.suspend_s > 0) and min(_pps(lines)[1:-1]) > 0
        ),
    }
    return _finish(options.record, {**row, "samples": samples, "pps_windows": _pps(lines)}, report)


def _finish(record: Path, row: dict[str, Any], report: dict[str, Any]) -> int:
    """Appends and prints the report; returns the exit code."""
    append(record, {**row, **report})
    for name, value in report.items():
        print(f"{name}: {value}")
    print(f"appended to {record}")
    return 0 if all(report["holds"].values()) else 1


def _run(options: Options, folder: Path) -> tuple[list[Sample], int, str]:
    """Trains; returns what was seen, the number of kills, and what the run said."""
    command = [sys.executable, "-m", "ga3c", "train", options.env, "--minutes", str(options.minutes)]
    draw = random.Random(options.seed)
    samples: list[Sample] = []
    kills = 0
    with (
        control(options.env) as machine,
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        subprocess.Popen([*command, "--out", str(folder)], cwd=ROOT, stdout=said, stderr=said, text=True) as learner,
    ):
        began = time.monotonic()
        next_look, next_kill = began + _LOOK_EVERY_S, began + 2 * _LOOK_EVERY_S
        while learner.poll() is None:
            now = time.monotonic()
            if options.suspend_s and now - began > 30 * options.minutes:
                with standing_still(learner.pid):
                    time.sleep(options.suspend_s)
                suspended_s, options = options.suspend_s, replace(options, suspend_s=0.0)
                began += suspended_s  # which is no time of training
                next_look, next_kill = next_look + suspended_s, next_kill + suspended_s
                continue
            if now - began > 60 * options.minutes + 60:
                learner.kill()
                raise BenchmarkError("the run did not end a minute after its time")
            if now >= next_look and now - began < 60 * options.minutes - _LOOK_EVERY_S:
                next_look += _LOOK_EVERY_S
                with contextlib.suppress(OSError):  # it has just ended
                    sample = {"time_s": round(now - began, 1), **_look(learner.pid)}
                    samples.append(sample | {"control_us": _control_us(learner.pid, machine)})
            if options.kill_every and now >= next_kill and now - began < 60 * options.minutes - 5:
                next_kill += draw.uniform(0.5, 1.5) * options.kill_every
                kills += _kill_one(learner.pid, draw)
            time.sleep(0.1)
        said.seek(0)
        words = said.read()
    if learner.returncode:
        raise BenchmarkError(f"ga3c train ended with {learner.returncode}: {words[-2000:]}")
    return samples, kills, words


def _control_us(learner: int, machine: Control) -> float:
    """What a step costs outside of the run, which stands still for it: it shares neither cores nor caches with it."""
    with standing_still(learner):
        return machine.sample_us()


def _kill_one(learner: int, draw: random.Random) -> int:
    """Kills an actor; returns how many were killed."""
    alive = actors(learner)
    if not alive:
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(draw.choice(alive), signal.SIGKILL)
        return 1
    return 0


def _look(learner: int) -> Sample:
    """Memory in MB, descriptors and threads; raises OSError when the learner is gone."""
    memory = []
    for pid in actors(learner):
        with contextlib.suppress(OSError, ValueError):  # It has just been killed.
            memory.append(memory_mb(pid, "Pss"))
    return {
        "learner_rss_mb": memory_mb(learner, "Rss"),
        "learner_descriptors": len(os.listdir(f"/proc/{learner}/fd")),
        "learner_threads": len(os.listdir(f"/proc/{learner}/task")),
        "actors": len(memory),
        "actor_pss_mb": round(sum(memory) / len(memory), 1) if memory else math.nan,
    }


def _pps(lines: list[dict[str, Any]]) -> list[float]:
    return [line["pps"] for line in lines if line["kind"] == "rates" and line["pps"] is not None]


def _report(samples: list[Sample], lines: list[dict[str, Any]], kills: int, minutes: float) -> dict[str, Any]:
    """Slopes, drift and sums, and whether each is as it should be; a trend is judged from ``_TREND_MINUTES`` on.

    Other tenants make a shared machine faster and slower within the hour, so that throughput is judged beside what a
    step costs outside of the run at the same time (``control``).
    """
    settled = samples[int(len(samples) * _SETTLED) :]
    slopes = {
        name: _slope_a_minute(settled, name) for name in ("learner_rss_mb", "learner_descriptors", "actor_pss_mb")
    }
    rates = _pps(lines)
    warm = rates[int(len(rates) * _SETTLED) : -1]
    drift, control_drift = _last_over_first(warm), _last_over_first([sample["control_us"] for sample in settled])
    (totals,) = [line for line in lines if line["kind"] == "totals"]
    accounted = totals["samples_trained"] + sum(totals["samples_dropped"].values()) + totals["samples_in_flight"]
    *going, end = [line["prediction_gap_max_s"] for line in lines if line["kind"] == "rates"]
    gap = max(going)  # the last window is closed when all has been stopped
    threads = [sample["learner_threads"] for sample in settled]
    trends = {
        "the learner's memory has no trend (below 0.5 MB a minute)": slopes["learner_rss_mb"] < 0.5,
        "an actor's memory has no trend (below 0.5 MB a minute)": slopes["actor_pss_mb"] < 0.5,
        "no descriptors leak": abs(slopes["learner_descriptors"]) < 0.2,
        "throughput of the last third is within 5 % of the first, or above it, beside the same work outside": (
            drift * control_drift >= 0.95
        ),
    }
    return {
        "kills": kills,
        "slopes_a_minute": slopes,
        "learner_threads": [min(threads), max(threads)],
        "pps": spread(warm),
        "longest_gap_between_predictions_s": gap,
        "until_all_had_stopped_s": end,
        "pps_last_third_over_first": round(drift, 3),
        "cost_of_a_step_outside_last_third_over_first": round(control_drift, 3),
        "pps_beside_that_last_third_over_first": round(drift * control_drift, 3),
        "totals": totals,
        "unaccounted_steps": totals["env_steps"] - totals["resumed_steps"] - accounted,
        "holds": {
            "every step is accounted for": totals["env_steps"] - totals["resumed_steps"] == accounted,
            "no threads leak": max(threads) - min(threads) <= 1,
            "predictions never stop for more than a second": gap <= 1.0,
            **(trends if minutes >= _TREND_MINUTES else {}),
        },
    }


def _last_over_first(values: list[float]) -> float:
    """Median of the last third over that of the first."""
    third = max(1, len(values) // 3)
    return float(np.median(values[-third:]) / np.median(values[:third]))


def _slope_a_minute(samples: list[Sample], name: str) -> float:
    """Of a straight line through the samples, least squares."""
    pairs = [(sample["time_s"] / 60, sample[name]) for sample in samples if math.isfinite(sample[name])]
    times, values = map(np.array, zip(*pairs, strict=True))
    return round(float(np.polyfit(times, values, 1)[0]), 4)


if __name__ == "__main__":
    main()
