"""What a user waits for and pays for: seconds from the command to the first update, and the memory of each process.

A program of five lines calls ``ga3c.train``, which does what ``ga3c train`` does, and says when it hears of an update:
up to a quarter of a second after it was made. Memory is looked at from outside a while later. PSS counts a page that
several processes share in parts.
"""

import math
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from processes import actors, memory_mb
from record import RESULTS, ROOT, BenchmarkError, append, facts, prepare, run_benchmark, spread

from ga3c.errors import UsageError

_GIVEN_UP_S = 60.0
_PROGRAM = """
import sys
import ga3c
options = {"actors": int(sys.argv[2]), "envs_per_actor": int(sys.argv[3]), "out": sys.argv[4]}
say = lambda update: update.number > 1 or print("update", flush=True)
ga3c.train(sys.argv[1], quiet=True, on_update=say, **options)
"""


@dataclass(frozen=True)
class Options:
    """Starts a run again and again; looks at its memory each time."""

    env: str = "Pong-v5"
    """As in `ga3c train`."""
    actors: int = 4
    """Likewise."""
    envs_per_actor: int = 16
    """Likewise."""
    repeats: int = 5
    """Runs."""
    seconds: float = 15.0
    """From the first update to the look at the memory."""
    record: Path = RESULTS / "footprint.jsonl"
    """JSONL file that a row is appended to."""


def main() -> None:
    """Entry point."""
    run_benchmark("footprint", lambda: _main(tyro.cli(Options, prog="footprint.py")))


def _main(options: Options) -> None:
    if min(options.actors, options.envs_per_actor, options.repeats) < 1 or not 0 <= options.seconds < math.inf:
        raise UsageError("counts from 1 on and --seconds from 0 on would be right")
    prepare(options.record)
    row = {"measured": "footprint", **facts(), "options": {**vars(options), "record": None}}
    runs = []
    for number in range(1, options.repeats + 1):
        runs.append(_one(options))
        print(f"run {number}: {runs[-1]}", flush=True)
    summary = {
        "first_update_s": spread([run["first_update_s"] for run in runs]),
        "actor_pss_mb": spread([mb for run in runs for mb in run["actor_pss_mb"]]),
        "learner_pss_mb": spread([run["learner_pss_mb"] for run in runs]),
    }
    for name, figures in summary.items():
        print(f"{name}: median {figures['median']:g} ({figures['min']:g} to {figures['max']:g})")
    append(options.record, {**row, **summary, "runs": runs})
    print(f"appended to {options.record}")


def _one(options: Options) -> dict[str, Any]:
    """One run, from its command to its end.

    Raises:
      BenchmarkError: it made no update.
    """
    with tempfile.TemporaryDirectory(prefix="ga3c-footprint-") as temporary:
        words = [options.env, str(options.actors), str(options.envs_per_actor), f"{temporary}/run"]
        began = time.monotonic()
        command = [sys.executable, "-c", _PROGRAM, *words]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            assert run.stdout is not None
            try:
                said = run.stdout.readline()  # its end, if the run ends
                first_s = time.monotonic() - began
                if said.strip() != "update":
                    raise BenchmarkError(f"the run made no update: {said}{run.stdout.read()}")
                time.sleep(options.seconds)
                memory = [memory_mb(pid, "Pss") for pid in actors(run.pid)]
                learner = memory_mb(run.pid, "Pss")
                run.terminate()
                run.wait(_GIVEN_UP_S)
            finally:
                run.kill()
    return {
        "first_update_s": round(first_s, 2),
        "actor_pss_mb": memory,
        "actor_pss_mb_mean": round(statistics.mean(memory), 1),
        "learner_pss_mb": learner,
    }


if __name__ == "__main__":
    main()
