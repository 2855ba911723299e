"""Errors that the command line turns into one sentence, and the words for them."""

import difflib


class UsageError(ValueError):
    """The user asked for what cannot be had: the message says what was received and what would be right."""


class WorkerError(RuntimeError):
    """A role failed: the message begins with its name, as in ``actor 3``, and holds its traceback."""


def nearest(name: str, known: list[str]) -> str:
    """A half-sentence with the names most like ``name``, or an empty string."""
    lower = {k.lower(): k for k in known}
    close = [lower[m] for m in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    return f"; nearest: {', '.join(close)}" if close else ""
