"""What predictions and updates take on a device that only waits: a line each, by network. Without torch."""

import json
import math
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ga3c.errors import UsageError, nearest

PREFIX = "simulated:"
ANY_NETWORK = "*"


@dataclass(frozen=True)
class Line:
    """Seconds that a batch takes: base + per state."""

    base_s: float
    per_state_s: float

    def seconds(self, states: int) -> float:
        """For a batch of so many states."""
        return self.base_s + self.per_state_s * states


@dataclass(frozen=True)
class Curve:
    """What a device takes for one network."""

    prediction: Line
    training: Line

    @classmethod
    def from_json(cls, values: Any) -> "Curve":
        """The inverse of ``dataclasses.asdict``.

        Raises:
          TypeError, KeyError, ValueError: these are no latencies.
        """
        lines = [Line(**{k: float(v) for k, v in values[name].items()}) for name in ("prediction", "training")]
        if not all(0 <= figure < math.inf for line in lines for figure in asdict(line).values()):
            raise ValueError(f"a latency is negative or not finite: {values}")
        return cls(*lines)


def is_simulated(device: str) -> bool:
    """Whether ``--device`` names a device that only waits."""
    return device.startswith(PREFIX)


def absolute_device(device: str, folder: Path) -> str:
    """The name of a device, with the absolute path of the file that describes it, if there is one in ``folder``."""
    path = folder / device.removeprefix(PREFIX)
    return f"{PREFIX}{path}" if is_simulated(device) and path.is_file() else device


def find_curve(device: str, network: str) -> Curve:
    """The curve of ``simulated:NAME`` for a network.

    Raises:
      UsageError: there is none.
    """
    curves = read_curves(device)
    if network not in curves and ANY_NETWORK not in curves:
        raise UsageError(f"--device: {device} has no curve for network {network}; it has {', '.join(curves)}")
    return curves.get(network) or curves[ANY_NETWORK]


def read_curves(device: str) -> dict[str, Curve]:
    """The curves of ``simulated:NAME`` by network; NAME is the package's, or a file that ``ga3c networks --fit`` wrote.

    Raises:
      UsageError: there is no such device.
    """
    name = device.removeprefix(PREFIX)
    known = json.loads((resources.files("ga3c") / "data" / "simulated_devices.json").read_text(encoding="utf-8"))
    path = Path(name)
    if name not in known and not path.is_file():
        raise UsageError(
            f"--device: unknown simulated device {name!r}{nearest(name, list(known))}; {', '.join(known)},"
            " or a file that ga3c networks --fit wrote would be right"
        )
    try:
        curves = known[name]["curves"] if name in known else json.loads(path.read_text(encoding="utf-8"))["curves"]
        return {network: Curve.from_json(curve) for network, curve in curves.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"--device: {path} holds no latency curves: {type(error).__name__}: {error}") from None
