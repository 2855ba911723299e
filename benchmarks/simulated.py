"""Checks whether ``--device simulated:...`` predicts the PPS of a device from its latencies.

The device is a core: the learner is pinned to one, the actors to another, so that, as with a GPU, the device takes no
core from the actors. Its latency curves are fitted there (``ga3c networks --fit``), while the other core steps
environments. Then each setting is run with the real network and with the device that only waits, by turns.
"""

import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from processes import actors
from record import RESULTS, ROOT, BenchmarkError, append, facts, prepare, run_benchmark
from training import Run, train_run

from ga3c.envs import EnvConfig, make_env
from ga3c.errors import UsageError

_LEARNER_CORE, _ACTOR_CORE = 0, 1
# Network, actors, environments of each, t_max, smallest training batch.
_SETTINGS = (
    ("small", 4, 8, 5, 160),
    ("small", 4, 16, 10, 320),
    ("nature", 2, 8, 5, 80),
    ("nature", 4, 8, 5, 160),
    ("large", 2, 8, 5, 80),
    ("large", 4, 8, 5, 160),
)


@dataclass(frozen=True)
class Options:
    """Compares predicted with measured PPS."""

    env: str = "Pong-v5"
    """As in `ga3c train`."""
    seconds: float = 12.0
    """Measured time of each run."""
    warm_up_s: float = 4.0
    """Seconds before that which do not count."""
    repeats: int = 2
    """Runs of each setting, on each of the two devices."""
    record: Path = RESULTS / "simulated.jsonl"
    """JSONL file that a row is appended to."""


def main() -> None:
    """Entry point."""
    run_benchmark("simulated", lambda: _main(tyro.cli(Options, prog="simulated.py")))


def _main(options: Options) -> None:
    if not {_LEARNER_CORE, _ACTOR_CORE} <= os.sched_getaffinity(0):
        raise UsageError(f"cores {_LEARNER_CORE} and {_ACTOR_CORE} are needed, and this process may not use both")
    prepare(options.record)
    row = {"measured": "simulated", **facts(), "options": {**vars(options), "record": None}}
    with tempfile.TemporaryDirectory(prefix="ga3c-simulated-") as temporary:
        curves = Path(temporary) / "curves.json"
        _fit(options, curves)
        row["curves"] = json.loads(curves.read_text(encoding="utf-8"))
        row["settings"] = [_compare(options, *setting, curves) for setting in _SETTINGS]
    append(options.record, row)
    errors = [abs(setting["predicted_over_measured"] - 1) for setting in row["settings"]]
    print(f"error: median {statistics.median(errors):.0%}, largest {max(errors):.0%} over {len(errors)} settings")
    print(f"appended to {options.record}")


def _fit(options: Options, path: Path) -> None:
    """Fits the curves on the learner's core while the actors' core is busy.

    Raises:
      BenchmarkError: it failed.
    """
    busy = multiprocessing.get_context("spawn").Process(target=_keep_busy, args=(options.env,), daemon=True)
    busy.start()
    try:
        command = [sys.executable, "-m", "ga3c", "networks", "--fit", "--device", "cpu", "--out", str(path)]
        done = subprocess.run(
            ["taskset", "--cpu-list", str(_LEARNER_CORE), *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        busy.kill()
        busy.join()
    if done.returncode:
        raise BenchmarkError(f"ga3c networks --fit ended with {done.returncode}: {done.stderr.strip()}")
    print(done.stdout, flush=True)


def _keep_busy(env_id: str) -> None:
    os.sched_setaffinity(0, {_ACTOR_CORE})
    env = make_env(EnvConfig(env_id), list(range(8)), in_worker=True)
    env.reset()
    actions = np.zeros(env.num_envs, np.int64)
    parent = os.getppid()
    while os.getppid() == parent:
        env.step(actions)


def _compare(options: Options, network: str, count: int, envs: int, t_max: int, batch: int, curves: Path) -> Run:
    """One setting on both devices, by turns."""
    arguments = [options.env, "--network", network, "--actors", str(count), "--envs-per-actor", str(envs)]
    arguments += ["--t-max", str(t_max), "--min-training-batch", str(batch), "--torch-threads", "1"]
    measured: list[float] = []
    predicted: list[float] = []
    for _ in range(options.repeats):
        for device, rates in (("cpu", measured), (f"simulated:{curves}", predicted)):
            run, _ = train_run([*arguments, "--device", device], options.warm_up_s, options.seconds, _pin)
            rates.append(run["pps"]["median"])
    ratios = [p / m for p, m in zip(predicted, measured, strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"{network}, {count} x {envs}, t_max {t_max}, batch {batch}: measured {statistics.median(measured):,.0f} PPS,"
        f" simulated {statistics.median(predicted):,.0f}; ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )
    return {
        "network": network,
        "actors": count,
        "envs_per_actor": envs,
        "t_max": t_max,
        "min_training_batch": batch,
        "measured_pps": measured,
        "simulated_pps": predicted,
        "predicted_over_measured": ratio,
    }


def _pin(learner: int) -> None:
    """Keeps the learner on its core and the actors on theirs, those that have come since too."""
    pinned = {learner: _LEARNER_CORE} | dict.fromkeys(actors(learner), _ACTOR_CORE)
    for pid, core in pinned.items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It has just ended.
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {core})


if __name__ == "__main__":
    main()
