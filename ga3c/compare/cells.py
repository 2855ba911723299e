"""One cell of a comparison: a fresh ``ga3c train``, and what is kept of the run folder that it leaves."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

POLL_S = 0.25
_STOP_S = 20.0  # that a run may take to write its checkpoint and end
_GAMES = 100  # in the mean that a score is reached by

Row = dict[str, Any]
Kind = Literal["mode", "trial", "grid"]
Watch = Callable[[], bool]
Runner = Callable[[list[str], float, Watch], str | None]


@dataclass(frozen=True)
class Cell:
    """What one run measures.

    Attributes:
      kind: ``mode`` compares modes, ``trial`` looks for the best counts, ``grid`` is one point of chart 3.
      mode, device, network: as ``ga3c train`` takes them.
      repeat: from 1; 0 for a trial.
      minutes: of training, at most.
      settings: options of ``ga3c train`` that are this cell's own, by their names in ``TrainConfig``.
    """

    kind: Kind
    mode: str
    device: str
    network: str
    repeat: int
    minutes: float
    settings: dict[str, int]

    @property
    def key(self) -> str:
        """Two cells with the same key measure the same."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def title(self) -> str:
        """In words."""
        what = {"mode": f"repeat {self.repeat}", "trial": "trial", "grid": f"grid, repeat {self.repeat}"}[self.kind]
        counts = "".join(f", {name.replace('_', '-')} {value}" for name, value in self.settings.items())
        return f"{self.mode} on {self.device}, {self.network}, {what}{counts}"

    @property
    def folder(self) -> str:
        """A name for its run folder, which no other cell of the comparison has."""
        counts = [f"{name}-{value}" for name, value in self.settings.items()]
        words = [self.kind, self.mode, self.device, self.network, str(self.repeat), *counts]
        return re.sub(r"[^\w.-]+", "-", "_".join(words))

    def arguments(self, env: str, seed: int, passed_on: list[str], folder: Path) -> list[str]:
        """Those of ``ga3c train``; the cell's own come last, since the last of an option given twice counts."""
        own = {"mode": self.mode, "network": self.network, "device": self.device, **self.settings}
        own |= {"minutes": f"{self.minutes:.4f}", "seed": seed, "out": folder}
        said = [word for name, value in own.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return [env, *passed_on, *said]


def cell_of(row: Row) -> Cell:
    """The cell that a row of the record is of."""
    return Cell(**row["cell"])


def run_train(arguments: list[str], limit_s: float, watch: Watch) -> str | None:
    """Runs ``ga3c train`` in processes of its own and waits for it, however this call ends.

    Args:
      arguments: those of ``ga3c train``.
      limit_s: seconds after which it is killed.
      watch: called a few times a second; True stops the run, which has then done what it should.

    Returns:
      None, or what it said when it failed.
    """
    command = [sys.executable, "-P", "-m", "ga3c", "train", *arguments]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        # A process group of its own: the terminal's Ctrl-C comes to this process alone, which passes it on once.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, process_group=0
        )
        try:
            enough = _wait(process, time.monotonic() + limit_s, watch)
        finally:
            code = _stop(process)
        said.seek(0)
        words = _plain(said.read())
    if enough is None:
        return f"did not end within {limit_s:.0f} s"
    return None if code == 0 or enough else words or f"ended with exit code {code}"


def _plain(text: str) -> str:
    """What a run said, without the boxes around it."""
    lines = [line.strip("╭╮╰╯│─ \n") for line in text.removeprefix("ga3c: ").splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("For full helptext"))


def _wait(process: subprocess.Popen[bytes], deadline: float, watch: Watch) -> bool | None:
    """Waits for the end; True if ``watch`` asked for it, None if the deadline passed."""
    while process.poll() is None:
        if watch():
            return True
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_S)
    return False


def _stop(process: subprocess.Popen[bytes]) -> int:
    """Ends the run if it goes on, by a signal, later by force; returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_S)
        except BaseException as error:  # too late, or the user's second Ctrl-C
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
    return process.wait()


class ScoreWatch:
    """Watches a run's metrics for a mean return of its last 100 games."""

    def __init__(self, folder: Path, score: float) -> None:
        self._path = folder / "metrics.jsonl"
        self._score = score
        self._offset = 0
        self._games = 0
        self.reached: Row | None = None  # time_s, env_steps and frames

    def __call__(self) -> bool:
        """True once the score is reached."""
        for line in self._new_lines():
            self._games += line["kind"] == "episode"
            mean = line.get("episode_return_mean")
            if self.reached is None and self._games >= _GAMES and mean is not None and mean >= self._score:
                self.reached = {name: line[name] for name in ("time_s", "env_steps", "frames")}
        return self.reached is not None

    def _new_lines(self) -> list[Row]:
        """Whole lines only: the run may be writing."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        text = text[: text.rfind(b"\n") + 1]
        self._offset += len(text)
        return [json.loads(line) for line in text.splitlines()]


def windows_of(rates: list[Row], warm_up_s: float) -> list[Row]:
    """The windows of a run, each with when it ``began_s``, its length in ``seconds`` and whether it is ``warm``.

    Warm are those that began ``warm_up_s`` or more after the first one in which all actors came to play did. The last
    one ends with the run, somewhere in its window, and never is.

    Args:
      rates: "rates" lines, in order.
      warm_up_s: seconds.
    """
    began = [0.0, *(line["time_s"] for line in rates)]
    first = next(
        (start for start, line in zip(began, rates, strict=False) if line["pps"] and _all_play(line)), math.inf
    )
    return [
        {
            "began_s": start,
            "seconds": round(line["time_s"] - start, 3),
            "warm": start >= first + warm_up_s and number < len(rates) - 1,
            **{name: value for name, value in line.items() if name != "kind"},
        }
        for number, (start, line) in enumerate(zip(began, rates, strict=False))
    ]


def _all_play(line: Row) -> bool:
    """Whether every actor has its environments; modes without actors, and older records, do not say."""
    actors = line.get("actors")
    return bool(line.get("actors_playing", actors) == actors)


def read_run(folder: Path, warm_up_s: float) -> Row:
    """What a run folder tells: ``run``, ``machine``, ``versions`` and ``windows``.

    Raises:
      OSError, ValueError, KeyError: it is not whole.
    """
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    run["config"]["out"] = None  # a folder of this machine
    return {
        "machine": run.pop("machine"),
        "versions": run.pop("versions"),
        "run": run,
        "windows": windows_of([line for line in lines if line["kind"] == "rates"], warm_up_s),
    }
