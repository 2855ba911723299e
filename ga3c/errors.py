"""Errors that the command line turns into one sentence, and the words for them."""

import difflib
import os
from collections.abc import Iterable


class UsageError(ValueError):
    """The user asked for what cannot be had: the message says what was received and what would be right."""


class WorkerError(RuntimeError):
    """A role failed: the message begins with its name, as in ``actor 3``, and holds its traceback."""


def nearest(name: str, known: list[str]) -> str:
    """A half-sentence with the names most like ``name``, or an empty string."""
    lower = {k.lower(): k for k in known}
    close = [lower[m] for m in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    return f"; nearest: {', '.join(close)}" if close else ""


def check_text(words: Iterable[str]) -> None:
    """Refuses names that are not text: files with metadata, HTML pages and event files cannot hold them.

    Python keeps the bytes of a name that is not UTF-8 as lone surrogates (PEP 383).

    Raises:
      UsageError: with the first such name.
    """
    for word in words:
        try:
            word.encode("utf-8")
        except UnicodeEncodeError:
            raise UsageError(f"got {word!a}, whose bytes are not UTF-8; expected a name in UTF-8") from None


def working_directory() -> str:
    """The working directory.

    Raises:
      UsageError: it has been deleted.
    """
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise UsageError("the working directory has been deleted; expected one that exists (cd to it first)") from None
