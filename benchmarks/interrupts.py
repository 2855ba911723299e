"""Short runs, each asked to stop at an instant drawn between the first instruction and the last."""

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from processes import alive, handles_signals, tree
from record import ROOT, BenchmarkError, spread

from ga3c.checkpoint import read_newest
from ga3c.errors import UsageError

_TRAINING = ["--minutes", "0.05", "--checkpoint-every", "1"]
_STOP_S = 5.0
_GONE_S = 2.0
_GIVEN_UP_S = 60.0


def interrupt(env: str, runs: int, seed: int) -> dict[str, Any]:
    """Ends that many runs, by SIGINT and SIGTERM in turn; returns what was seen, and what of it holds."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="ga3c-interrupts-") as temporary:
        whole_s = _whole_run(env, Path(temporary) / "whole")
        print(f"a run that is left alone takes {whole_s:.1f} s", flush=True)
        ends = []
        for number in range(runs):
            after_s = draw.uniform(0.0, whole_s)
            kind = (signal.SIGINT, signal.SIGTERM)[number % 2]
            ends.append(_one(env, Path(temporary) / f"run-{number}", kind, after_s))
            print(f"{number + 1} of {runs}: {ends[-1]}", flush=True)
    return {
        "whole_run_s": round(whole_s, 2),
        "interrupts": ends,
        "stop_s": spread([end["stop_s"] for end in ends]),
        "holds": {
            f"each run ends within {_STOP_S:g} s": all(end["stop_s"] <= _STOP_S for end in ends),
            "the exit code is the signal's, or 0 if the run had just ended": all(end["code_is_right"] for end in ends),
            "a checkpoint is left if an update was done, and can be read": all(end["kept"] for end in ends),
            "no traceback": not any(end["traceback"] for end in ends),
            f"no process is left after {_GONE_S:g} s more": all(end["gone_s"] is not None for end in ends),
        },
    }


def _start(env: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ga3c", "train", env, *_TRAINING, "--out", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _whole_run(env: str, folder: Path) -> float:
    began = time.monotonic()
    with _start(env, folder) as process:
        said, _ = process.communicate(timeout=_GIVEN_UP_S)
    if process.returncode:
        raise BenchmarkError(f"ga3c train ended with {process.returncode}: {said[-2000:]}")
    return time.monotonic() - began


def _one(env: str, folder: Path, kind: signal.Signals, after_s: float) -> dict[str, Any]:
    """One run: what was done to it, and how it ended."""
    with _start(env, folder) as process:
        while process.poll() is None and not handles_signals(process.pid):
            time.sleep(0.001)  # until then it is Python's to answer
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(kind)
        asked, family = time.monotonic(), tree(process.pid)
        try:
            said, _ = process.communicate(timeout=_GIVEN_UP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
    stop_s = time.monotonic() - asked
    gone_s = _wait_until_gone(family)
    trained = _updates(folder) > 0
    return {
        "signal": kind.name,
        "after_s": round(after_s, 3),
        "stop_s": round(stop_s, 3),
        "code": process.returncode,
        "code_is_right": process.returncode == 128 + kind or (process.returncode == 0 and "done after" in said),
        "trained": trained,
        "kept": _kept(folder) if trained else True,
        "traceback": "Traceback" in said,
        "gone_s": None if gone_s is None else round(gone_s, 3),
    }


def _wait_until_gone(pids: list[int]) -> float | None:
    """Seconds until none of the processes is there; None if that takes longer than it may."""
    began = time.monotonic()
    while any(map(alive, pids)):
        if time.monotonic() - began > _GONE_S:
            return None
        time.sleep(0.02)
    return time.monotonic() - began


def _updates(folder: Path) -> int:
    """What the run's metrics say, as far as they go."""
    try:
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    except OSError:
        return 0
    return max(
        (int(line["updates"]) for line in map(json.loads, text.splitlines()) if line["kind"] == "rates"), default=0
    )


def _kept(folder: Path) -> bool:
    """Whether a checkpoint with an update in it can be read."""
    try:
        updates, unusable = read_newest(folder, lambda checkpoint, _: checkpoint.progress.updates)
    except UsageError:
        return False
    return updates > 0 and not unusable
