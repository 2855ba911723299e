"""What a figure was measured on. Named facts only: no host name, none of the environment's variables."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("ga3c", "torch", "envpool", "gymnasium", "numpy")


def machine() -> dict[str, Any]:
    """The processor, the cores that this process may use, and the GPU if there is one."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "gpu": gpu, "system": platform.system()}


class CoreClock:
    """How busy the cores that this process may use have been, whoever was."""

    def __init__(self) -> None:
        self._cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        self._last = self._read()

    def busy_share(self) -> float | None:
        """Since the last call; None where the system does not say."""
        last, self._last = self._last, self._read()
        if last is None or self._last is None or self._last[1] <= last[1]:
            return None
        return 1 - (self._last[0] - last[0]) / (self._last[1] - last[1])

    def _read(self) -> tuple[int, int] | None:
        """Idle and all ticks."""
        try:
            lines = [line.split() for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines()]
        except OSError:
            return None
        ticks = [list(map(int, line[1:9])) for line in lines if line and line[0] in self._cores]
        if not ticks:
            return None
        return sum(t[3] + t[4] for t in ticks), sum(map(sum, ticks))


def versions() -> dict[str, str | None]:
    """Python's version and those of the packages that figures depend on; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def commit(*unwatched: str) -> dict[str, Any]:
    """The commit of the code that runs, and whether the checkout differs from it; None where it is no checkout.

    Args:
      unwatched: paths from the checkout's root whose changes do not count.
    """
    # An installed copy may lie inside somebody else's checkout, whose commit says nothing about it.
    if _git("ls-files", "--error-unmatch", "machine.py") is None:
        return {"commit": None, "dirty": None}
    status = _git("status", "--porcelain", "--", ":/", *(f":(top,exclude){path}" for path in unwatched))
    return {"commit": _git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
