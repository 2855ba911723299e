"""Compares the CPU time of an agent step in two checkouts, by turns: has a change made the package slower or not.

Each pair trains the same environment with both checkouts, one after the other, the first of them by turns. CPU time is
that of the learner, its forkserver and its actors, by the kernel's accounts, between two lines of the run's metrics,
once all actors play. On machines that drift the ratio of a pair is surer than either figure.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from processes import tree
from record import RESULTS, ROOT, BenchmarkError, append, facts, prepare, run_benchmark, spread

from ga3c.errors import UsageError

_GIVEN_UP_S = 120.0  # for a run to be warm
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.01


@dataclass(frozen=True)
class Options:
    """Compares the CPU time of a step in another checkout with that of this one."""

    old: Annotated[Path, tyro.conf.Positional]
    """The other checkout, as `git worktree add` makes one."""
    env: str = "Pong-v5"
    """As in `ga3c train`."""
    pairs: int = 10
    """Runs of each checkout."""
    seconds: float = 20.0
    """Measured in each run, once it is warm."""
    record: Path = RESULTS / "pairs.jsonl"
    """JSONL file that a row is appended to."""


def main() -> None:
    """Entry point."""
    run_benchmark("pairs", lambda: _main(tyro.cli(Options, prog="pairs.py")))


def _main(options: Options) -> None:
    if options.pairs < 1 or not 1 <= options.seconds < math.inf:
        raise UsageError(f"got --pairs {options.pairs} --seconds {options.seconds:g}; expected at least 1 of each")
    if not (options.old / "ga3c").is_dir():
        raise UsageError(f"got {options.old}; expected a checkout of this project")
    prepare(options.record)
    row = {"measured": "pairs", **facts(), "old_commit": _commit(options.old)}
    row["options"] = {"env": options.env, "pairs": options.pairs, "seconds": options.seconds}
    checkouts = {"old": options.old.resolve(), "new": ROOT}
    costs: dict[str, list[float]] = {"old": [], "new": []}
    for pair in range(options.pairs):
        for name in ("old", "new") if pair % 2 == 0 else ("new", "old"):
            costs[name].append(_cost_us(checkouts[name], options))
        print(f"pair {pair + 1}: {costs['old'][-1]:.1f} and {costs['new'][-1]:.1f} us a step", flush=True)
    ratios = [new / old for old, new in zip(costs["old"], costs["new"], strict=True)]
    error = statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.nan
    ratio = spread(ratios)
    figures = {"ratio": ratio, "ratio_mean": round(statistics.mean(ratios), 4), "ratio_error": round(error, 4)}
    append(options.record, {**row, **figures, "cpu_us_per_step": costs})
    print(f"new over old: median {ratio['median']:.3f}, mean {statistics.mean(ratios):.3f} +- {error:.3f}")
    print(f"appended to {options.record}")


def _commit(checkout: Path) -> str:
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=False)
    return told.stdout.strip()


def _cost_us(checkout: Path, options: Options) -> float:
    """Microseconds of CPU time an agent step, in a new run.

    Raises:
      BenchmarkError: the run did not come so far.
    """
    with tempfile.TemporaryDirectory(prefix="ga3c-pairs-") as folder:
        command = [sys.executable, "-P", "-m", "ga3c", "train", options.env, "--out", "run"]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        run = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        try:
            metrics = Path(folder) / "run" / "metrics.jsonl"
            began = _next_rates(metrics, run, lambda line: line["actors_playing"] == line["actors"], _GIVEN_UP_S)
            warm_s = began["time_s"]
            began = _next_rates(metrics, run, lambda line: line["time_s"] > warm_s, _GIVEN_UP_S)
            cpu_s = _cpu_s(run.pid)
            until_s = began["time_s"] + options.seconds
            ended = _next_rates(metrics, run, lambda line: line["time_s"] >= until_s, options.seconds + _GIVEN_UP_S)
            cpu_s = _cpu_s(run.pid) - cpu_s
        finally:
            run.terminate()
            run.wait()
    return 1e6 * cpu_s / float(ended["env_steps"] - began["env_steps"])


def _next_rates(metrics: Path, run: "subprocess.Popen[bytes]", fits: Any, timeout_s: float) -> dict[str, Any]:
    """The newest line of rates, as soon as it fits."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and run.poll() is None:
        time.sleep(_POLL_S)
        text = metrics.read_text(encoding="utf-8") if metrics.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        rates = [line for line in lines if line["kind"] == "rates"]
        if rates and fits(rates[-1]):
            return dict(rates[-1])
    raise BenchmarkError(f"the run of {metrics.parent} is not warm in time, or has ended")


def _cpu_s(pid: int) -> float:
    """Of a process and all that descend from it, so far."""
    total = 0
    for process in tree(pid):
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])  # utime, stime
    return total / _TICKS_PER_S


if __name__ == "__main__":
    main()
