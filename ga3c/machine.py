"""What a figure was measured on. Named facts only: no host name, none of the environment's variables."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("ga3c", "torch", "envpool", "gymnasium", "numpy")


def machine() -> dict[str, Any]:
    """The processor, the cores that this process may use, and the GPU if there is one."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "gpu": gpu, "system": platform.system()}


def versions() -> dict[str, str | None]:
    """Python's version and those of the packages that figures depend on; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
