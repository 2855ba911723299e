"""Says in words what holds a run back, and what to change, from the figures of a window. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

_BUSY = 0.9  # of a role's or of the cores' time: then there is no more to be had of it


class Bottleneck(NamedTuple):
    """What holds the run back, how that shows, and what to change; each a phrase."""

    what: str
    why: str
    change: str

    def __str__(self) -> str:
        return f"held back by {self.what}: {self.why}; {self.change}"


def find_bottleneck(rates: Mapping[str, Any], *, on_cpu: bool) -> Bottleneck | None:  # noqa: PLR0911  (a case each)
    """Of mode ``ga3c``; None where the figures do not say.

    Args:
      rates: a ``"rates"`` line of ``metrics.jsonl``.
      on_cpu: whether the model computes on the cores that step the environments.
    """
    seconds = rates["role_seconds"]
    if not {"actor", "predictor", "trainer"} <= set(seconds):
        return None
    if rates.get("actors_playing") != rates.get("actors"):  # cores make environments, which is nobody's time
        return None
    waits = {role: rates[f"{role}_wait_share"] for role in ("actor", "predictor", "trainer")}
    cores = rates["cores_busy_share"]
    if None in waits.values() or cores is None:
        return None
    if on_cpu and cores >= _BUSY:
        return _shared_cores(seconds, cores)
    segments = seconds["actor"].get("waiting_for_segments", 0.0) / sum(seconds["actor"].values())
    if 1 - waits["trainer"] >= _BUSY or segments > 0.2:
        why = f"trainers are busy {1 - waits['trainer']:.0%} of the time, actors wait for them {segments:.0%}"
        return Bottleneck("training", why, "a larger --min-training-batch or a second trainer may help")
    if 1 - waits["predictor"] >= _BUSY:
        why = f"predictors are busy {1 - waits['predictor']:.0%} of the time, actors wait {waits['actor']:.0%}"
        return Bottleneck("predictions", why, "a second predictor, or more environments an actor, may help")
    if cores >= _BUSY:
        why = f"all cores are busy stepping, and actors wait {waits['actor']:.0%} of the time"
        return Bottleneck("the environments", why, "more cores would help, and nothing else")
    if waits["actor"] > 0.5:
        why = f"actors wait {waits['actor']:.0%} of the time, and cores are idle {1 - cores:.0%} of it"
        return Bottleneck("too few games", why, "more --actors or --envs-per-actor keep both busy")
    why = f"actors step {1 - waits['actor']:.0%} of the time, and cores are idle {1 - cores:.0%} of it"
    return Bottleneck("the environments", why, "more --actors would use the cores")


def _shared_cores(seconds: Mapping[str, Mapping[str, float]], cores: float) -> Bottleneck:
    """All compute on the same cores: who takes most of them."""
    work = {
        "the environments": _worked(seconds["actor"]),
        "predictions": _worked(seconds["predictor"]),
        "training": _worked(seconds["trainer"]),
    }
    total = sum(work.values()) or 1.0
    most = max(work, key=lambda name: work[name])
    others = ", ".join(f"{name} {spent / total:.0%}" for name, spent in work.items() if name != most)
    why = f"the cores are {cores:.0%} busy, {most} take {work[most] / total:.0%} of that ({others})"
    changes = {
        "the environments": "more cores would help",
        "predictions": "more games for fuller batches, a smaller network, or a GPU would help",
        "training": "a larger --min-training-batch, a smaller network, or a GPU would help",
    }
    return Bottleneck(most, why, changes[most])


def _worked(activities: Mapping[str, float]) -> float:
    return sum(spent for activity, spent in activities.items() if not activity.startswith("waiting"))
