"""What every benchmark shares: facts about machine and code, spreads of figures, and rows of a record."""

import datetime
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ga3c.errors import UsageError
from ga3c.machine import commit, machine, versions

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


class BenchmarkError(RuntimeError):
    """What was to be measured did not run; the message says how it ended."""


def run_benchmark(name: str, work: Callable[[], int | None]) -> NoReturn:
    """Runs ``work`` and ends the process: 2 for what the user said wrongly, 1 for what did not run, in a sentence."""
    try:
        sys.exit(work())
    except UsageError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except BenchmarkError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def facts() -> dict[str, Any]:
    """When, on what and of which code a benchmark was made; taken before it loads the machine."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        **commit("benchmarks/results"),
        "machine": machine(),
        "versions": versions(),
        "load_average_before": round(os.getloadavg()[0], 2),  # of the last minute: near 0 on an idle machine
    }


def spread(figures: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes.

    Args:
      figures: at least one.
    """
    quartiles = statistics.quantiles(figures, n=4, method="inclusive") if len(figures) > 1 else [figures[0]] * 3
    named = zip(("min", "q1", "median", "q3", "max"), (min(figures), *quartiles, max(figures)), strict=True)
    return {name: float(f"{figure:.6g}") for name, figure in named}


def prepare(path: Path) -> None:
    """Makes sure that a row can be appended to ``path``, before the time for measuring is spent.

    Raises:
      UsageError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise UsageError(f"--record: {path} cannot be written: {error.strerror}") from None


def append(path: Path, row: dict[str, Any]) -> None:
    """Appends a row to a JSONL file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
