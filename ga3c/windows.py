"""What a run's windows say together: its ``"rates"`` lines, pooled. Pure."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_BINS = 32

_ROLES = ("actor", "predictor", "trainer", "worker", "learner")  # in the order of a step

Window = Mapping[str, Any]


def histogram(windows: Iterable[Window], name: str) -> dict[float, int]:
    """A histogram pooled over windows, counts by value; empty where none kept it."""
    counts: Counter[float] = Counter()
    for window in windows:
        counts.update({float(value): count for value, count in (window.get(name) or {}).items()})
    return dict(sorted(counts.items()))


def bin_edges(values: Iterable[float]) -> NDArray[np.float64]:
    """Edges of equal bins around whole numbers, from the smallest value to the largest.

    What is counted in rollouts or requests comes in multiples: a bin holds the same number of them as the next.
    """
    whole = [int(value) for value in values]
    low, high = min(whole), max(whole)
    unit = math.gcd(*(value - low for value in whole)) or 1
    width = unit * math.ceil(((high - low) // unit + 1) / _MOST_BINS)
    return np.arange(low - unit / 2, high + width, width)


def shares(counts: Mapping[float, int], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per cent of all that is counted in each bin, [len(edges) - 1]."""
    found, _ = np.histogram(list(counts), edges, weights=np.asarray(list(counts.values()), float))
    percent: NDArray[np.float64] = 100 * found / found.sum()
    return percent


def role_seconds(windows: Iterable[Window]) -> dict[str, dict[str, float]]:
    """What each role spent its time on, by activity; actors first."""
    seconds: dict[str, defaultdict[str, float]] = {}
    for window in windows:
        for role, spent in (window.get("role_seconds") or {}).items():
            for activity, s in spent.items():
                seconds.setdefault(role, defaultdict(float))[activity] += s
    order = sorted(seconds, key=lambda role: _ROLES.index(role) if role in _ROLES else len(_ROLES))
    return {role: dict(seconds[role]) for role in order}


def role_shares(windows: Iterable[Window]) -> dict[str, dict[str, float]]:
    """Shares of each role's time, by what it did; whatever it waits for is ``waiting``. Roles without time are not."""
    found: dict[str, dict[str, float]] = {}
    for role, spent in role_seconds(windows).items():
        total = sum(spent.values())
        if total > 0:
            own: defaultdict[str, float] = defaultdict(float)
            for activity, s in spent.items():
                own["waiting" if activity.startswith("waiting") else activity] += s / total
            found[role] = dict(own)
    return found


def pooled(windows: Sequence[Window]) -> dict[str, Any]:
    """One window of all that ``bottleneck`` reads, over the whole time of ``windows``."""
    found = role_shares(windows)
    busy = [window["cores_busy_share"] for window in windows if window.get("cores_busy_share") is not None]
    return {
        "role_seconds": role_seconds(windows),
        "cores_busy_share": float(np.mean(busy)) if busy else None,
        **{f"{role}_wait_share": found.get(role, {}).get("waiting") for role in ("actor", "predictor", "trainer")},
    }
