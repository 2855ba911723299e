"""One run that is killed without warning again and again, the learner alone or all of it, and resumed each time."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from processes import alive, tree
from record import ROOT, BenchmarkError, spread

from ga3c.checkpoint import read_newest
from ga3c.folder import list_checkpoints

_CHECKPOINT_EVERY_S = 5.0
_WRITING_S = 1.0  # that a checkpoint, and the look at the clock before it, may take
_GONE_S = 2.0
_GIVEN_UP_S = 60.0


def crash(env: str, crashes: int, seed: int) -> dict[str, Any]:
    """Kills that often; returns what was seen, and what of it holds."""
    draw = random.Random(seed)
    before = sorted(os.listdir("/dev/shm"))
    with tempfile.TemporaryDirectory(prefix="ga3c-crashes-") as temporary:
        folder = Path(temporary) / "run"
        seen = []
        for number in range(crashes):
            seen.append(_one(env, folder, number, draw))
            print(f"{number + 1} of {crashes}: {seen[-1]}", flush=True)
        steps = _newest_steps(folder)
        with _start(env, folder, ["--total-steps", str(steps + 2000)]) as run:
            said, _ = run.communicate(timeout=_GIVEN_UP_S)
    return {
        "crashes": seen,
        "gone_s": spread([one["gone_s"] for one in seen]),
        "lost_s": spread([one["lost_s"] for one in seen]),
        "holds": {
            f"no process is left after {_GONE_S:g} s": all(one["gone_s"] <= _GONE_S for one in seen),
            "nothing stays in /dev/shm": sorted(os.listdir("/dev/shm")) == before,
            "each resume begins at the newest checkpoint": all(one["resumed_right"] for one in seen),
            f"what is lost is at most --checkpoint-every, {_CHECKPOINT_EVERY_S:g} s": all(
                one["lost_s"] <= _CHECKPOINT_EVERY_S + _WRITING_S for one in seen
            ),
            "the last resume ends by itself": run.returncode == 0 and f"resumed at {steps:,} steps" in said,
        },
    }


def _start(env: str, folder: Path, more: list[str]) -> subprocess.Popen[str]:
    what = ["--resume", str(folder)] if folder.exists() else [env, "--out", str(folder)]
    command = [sys.executable, "-m", "ga3c", "train", *what, "--checkpoint-every", str(_CHECKPOINT_EVERY_S), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _one(env: str, folder: Path, number: int, draw: random.Random) -> dict[str, Any]:
    """One life of the run: until it has written a checkpoint of its own, and a random time longer."""
    steps = _newest_steps(folder)
    began = time.monotonic()
    with _start(env, folder, []) as run:
        while _newest_steps(folder) == steps:
            if run.poll() is not None or time.monotonic() - began > _GIVEN_UP_S:
                run.kill()
                raise BenchmarkError(f"the run wrote no checkpoint: {run.communicate()[0][-2000:]}")
            time.sleep(0.1)
        time.sleep(draw.uniform(0.0, 2 * _CHECKPOINT_EVERY_S))
        pids = tree(run.pid)
        victims = pids if number % 2 else [run.pid]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed, at = time.monotonic(), time.time()
        run.wait(_GIVEN_UP_S)
        while any(alive(pid) for pid in pids) and time.monotonic() - killed < _GIVEN_UP_S:
            time.sleep(0.01)
        gone_s = time.monotonic() - killed
        said = run.communicate()[0]
    resumed = re.search(r"resumed at ([\d,]+) steps", said)
    return {
        "killed": "all" if number % 2 else "the learner",
        "processes": len(pids),
        "after_s": round(killed - began, 1),
        "gone_s": round(gone_s, 2),
        "lost_s": round(at - list_checkpoints(folder)[-1].stat().st_mtime, 2),
        "resumed_right": (int(resumed[1].replace(",", "")) if resumed else 0) == steps,
    }


def _newest_steps(folder: Path) -> int:
    """Steps of the newest checkpoint, 0 before there is one.

    Raises:
      UsageError: none of them is whole.
    """
    if not list_checkpoints(folder):
        return 0
    steps, _ = read_newest(folder, lambda checkpoint, _: checkpoint.progress.env_steps)
    return steps
