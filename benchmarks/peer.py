"""Runs another library in an environment of its own, so that neither its packages nor its pins touch ga3c's.

A peer is ``peers/<name>.txt``, the pinned packages, or ``peers/<name>.source``, a repository and its commit, and a
script in ``peers/`` that prints one JSON line.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import BenchmarkError

_FOLDER = Path(__file__).resolve().parent
_ENVIRONMENTS = _FOLDER / ".peers"
_TAIL = 2000  # characters of a failed command's last words


def peer_python(name: str) -> Path:
    """The interpreter of a peer's environment, which the first call makes, and the first after its pins changed.

    Raises:
      BenchmarkError: it cannot be made.
    """
    folder = _ENVIRONMENTS / name
    python = folder / "bin" / "python"
    requirements = _FOLDER / "peers" / f"{name}.txt"
    made_of = folder / "made-of.txt"  # written last: an environment without it is half made
    pins = requirements.read_text(encoding="utf-8")
    if not made_of.exists() or made_of.read_text(encoding="utf-8") != pins:
        print(f"making the environment of {name}, once: {', '.join(pins.split())}", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)])
        made_of.write_text(pins, encoding="utf-8")
    return python


def peer_source(name: str) -> Path:
    """A checkout of a peer that is no package, which the first call makes.

    Raises:
      BenchmarkError: it cannot be made.
    """
    folder = _ENVIRONMENTS / name
    address, commit = (_FOLDER / "peers" / f"{name}.source").read_text(encoding="utf-8").split()
    if not folder.exists():
        print(f"fetching {name}, once: {address}", flush=True)
        _run(["git", "clone", "--quiet", address, str(folder)])
    _run(["git", "-C", str(folder), "checkout", "--quiet", commit])
    return folder


def run_peer(python: Path, script: str, arguments: list[str]) -> dict[str, Any]:
    """Runs a peer's script and returns what its last line says.

    Raises:
      BenchmarkError: it failed.
    """
    output = _run([str(python), str(_FOLDER / "peers" / script), *arguments])
    answer: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return answer


def _run(command: list[str]) -> str:
    """Returns the standard output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-_TAIL:]}")
    return done.stdout
