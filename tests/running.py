"""Runs the command line in processes of its own, and looks at what they are and write."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
STOP_S = 20  # what a busy machine may take; that 5 s do is measured by benchmarks/soak.py --interrupts
SMALL = ["--actors", "2", "--envs-per-actor", "4", "--min-training-batch", "16", "--t-max", "4"]


def ga3c(*arguments, cwd, wait=True, **options):
    """Runs ``python -m ga3c`` in a folder of its own; returns the finished process, or the running one."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ga3c", *map(str, arguments)],
        cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip
    return finish(process) if wait else process


def finish(process, timeout=100):
    try:
        process.out, process.err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process


def handles_signals(pid):
    """Whether a process has a handler for SIGTERM, as the command line has from its first lines on."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    [caught] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def metrics(folder, kind):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def roles(cwd):
    """Titles of the package's processes that work in a folder, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "cwd").resolve() != cwd.resolve():
                continue
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except (OSError, NotADirectoryError):
            continue
        if title.startswith("ga3c: "):
            found[int(entry.name)] = title
    return found


def wait_for(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def wait_for_training(folder, process):
    """Until a first line of metrics says that the model has been updated."""

    def training():
        if process.poll() is not None:
            return True
        path = folder / "metrics.jsonl"
        return path.exists() and any('"updates": 0,' not in line and '"rates"' in line for line in path.open())

    assert wait_for(training)
    assert process.poll() is None, process.communicate()
