"""GA3C: actor-critic whose actors hold no parameters and whose one model is served in batches.

``train``, ``load`` and ``make_vec`` do from Python what the command line does; its other commands are functions in the
modules that bear their names, as in ``from ga3c.evaluate import evaluate``.

This module stays free of torch, and of all that takes time to load: actor processes import the package too.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ga3c.api import load, make_vec, train
    from ga3c.envs import EnvError
    from ga3c.errors import UsageError, WorkerError
    from ga3c.events import EpisodeEvent, Run, UpdateEvent
    from ga3c.policy import Policy

__version__ = "0.1.0"
__all__ = [
    "EnvError",
    "EpisodeEvent",
    "Policy",
    "Run",
    "UpdateEvent",
    "UsageError",
    "WorkerError",
    "load",
    "make_vec",
    "train",
]
_ROOMS = {
    "api": ("load", "make_vec", "train"),
    "envs": ("EnvError",),
    "errors": ("UsageError", "WorkerError"),
    "events": ("EpisodeEvent", "Run", "UpdateEvent"),
    "policy": ("Policy",),
}


def __getattr__(name: str) -> Any:
    """Loads what is public when it is first asked for (PEP 562)."""
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(f"ga3c.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *__all__]
