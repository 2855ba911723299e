"""How long a user waits to be told of a slip: every wrong input of the tests' table, typed as a command of its own."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from record import RESULTS, ROOT, append, facts, prepare, run_benchmark, spread

sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Options:
    """Runs each wrong command and appends how long the answers took."""

    within_s: float = 3.0
    """Seconds that an answer may take."""
    record: Path = RESULTS / "bad_input.jsonl"
    """JSONL file that a row is appended to."""


def main() -> None:
    """Entry point; the exit code is 1 if an answer was no sentence with exit code 2, or took longer."""
    run_benchmark("bad_input", lambda: _main(tyro.cli(Options, prog="bad_input.py")))


def _main(options: Options) -> int:
    from tests.test_bad_input import TABLE

    prepare(options.record)
    row = {"measured": "bad input", **facts()}
    answers: list[tuple[float, str, bool]] = []  # seconds, command, whether it was answered as it should be
    table: list[Any] = TABLE
    for arguments, setup, words in table:
        with tempfile.TemporaryDirectory(prefix="ga3c-bad-input-") as folder:
            if setup is not None:
                setup(Path(folder))
            environment = os.environ | {"PYTHONPATH": str(ROOT), "DISPLAY": "", "WAYLAND_DISPLAY": ""}
            began = time.monotonic()
            ended = subprocess.run(
                [sys.executable, "-m", "ga3c", *arguments],
                cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            took = time.monotonic() - began
        said = " ".join((ended.stderr if arguments else ended.stdout).split())
        right = ended.returncode == 2 and words in said and "Traceback" not in said
        answers.append((round(took, 2), " ".join(["ga3c", *arguments]), right))
    answers.sort(reverse=True)
    for seconds, command, _ in answers[:10]:
        print(f"{seconds:5.2f} s  {command}")
    holds = all(right and seconds < options.within_s for seconds, _, right in answers)
    row |= {
        "commands": len(answers),
        "s": spread([seconds for seconds, _, _ in answers]),
        "slowest": [{"s": seconds, "command": command} for seconds, command, _ in answers[:10]],
        f"all within {options.within_s:g} s, with exit code 2 and no traceback": holds,
    }
    append(options.record, row)
    print(f"{len(answers)} commands; all within {options.within_s:g} s: {holds}; appended to {options.record}")
    return 0 if holds else 1


if __name__ == "__main__":
    main()
