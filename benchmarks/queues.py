"""Compares candidates for the index channel between actors and learner: 13 bytes there, one byte back.

Each repeat measures every candidate with every number of actors, by turns: round trips a second of all actors together,
the median and the 99th percentile of a round trip, and the CPU time of both sides for one. Then actors are killed at
random instants (``kill -9``), again and again, and it is seen whether those that are left still get their answers.
"""

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from peer import peer_python, run_peer
from record import RESULTS, append, facts, prepare, run_benchmark

from ga3c.errors import UsageError

_CANDIDATES = ("sockets", "pipes", "simple-queue", "faster-fifo", "zmq", "slots")
_FIGURES = ("round_trips_per_s", "p50_us", "p99_us", "cpu_us_a_round_trip")


@dataclass(frozen=True)
class Options:
    """Measures channels between one server and many actors."""

    actors: list[int] = field(default_factory=lambda: [1, 4, 16, 64])
    """Numbers of actors."""
    candidates: list[str] = field(default_factory=lambda: list(_CANDIDATES))
    """Which to measure."""
    seconds: float = 2.0
    """Of each measurement."""
    kills: int = 40
    """Actors killed after each measurement, as long as there are two others."""
    repeats: int = 3
    """Rounds over all."""
    record: Path = RESULTS / "queues.jsonl"
    """JSONL file that a row is appended to."""


def main() -> None:
    """Entry point."""
    run_benchmark("queues", lambda: _main(tyro.cli(Options, prog="queues.py")))


def _main(options: Options) -> None:
    unknown = [name for name in options.candidates if name not in _CANDIDATES]
    if unknown or min(options.actors) < 1 or options.repeats < 1 or options.seconds <= 0 or options.kills < 0:
        raise UsageError(f"--candidates of {', '.join(_CANDIDATES)}, and counts from 1 on, would be right")
    prepare(options.record)
    python = peer_python("queues")
    row = {"measured": "queues", **facts(), "options": {**vars(options), "record": None}}
    runs: list[dict[str, Any]] = []
    for repeat in range(1, options.repeats + 1):
        for actors in options.actors:
            for name in options.candidates:
                words = [name, str(actors), str(options.seconds), str(options.kills)]
                runs.append({"repeat": repeat, **run_peer(python, "channels.py", words)})
                print(f"repeat {repeat}: {runs[-1]}", flush=True)
    table = _table(options, runs)
    print("\n".join(table))
    append(options.record, {**row, "runs": runs, "table": table})
    print(f"appended to {options.record}")


def _table(options: Options, runs: list[dict[str, Any]]) -> list[str]:
    """Medians over the repeats, in Markdown."""
    lines = [
        "| channel | actors | round trips a second | p50, us | p99, us | CPU, us a round trip | held up / kills |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for actors in options.actors:
        for name in options.candidates:
            found = [run for run in runs if (run["candidate"], run["actors"]) == (name, actors)]
            rate, *rest = (statistics.median(run[figure] for run in found) for figure in _FIGURES)
            held_up, kills = (sum(run[figure] for run in found) for figure in ("held_up_after_kill", "kills"))
            figures = " | ".join(f"{value:.1f}" for value in rest)
            lines.append(f"| {name} | {actors} | {rate:,.0f} | {figures} | {held_up} / {kills} |")
    return lines


if __name__ == "__main__":
    main()
