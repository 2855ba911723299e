"""Reads the command line: tyro does it, and what is wrong becomes one sentence."""

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

import tyro

from ga3c.errors import UsageError, check_text

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], command: str, default: T | None = None) -> T:
    """Reads fields of a dataclass; ``--help`` prints and ends the process.

    Args:
      kind: the dataclass; its docstrings are the help.
      arguments: what the user typed after the command.
      command: what was typed before, as in ``ga3c train``.
      default: an instance that the arguments change.

    Raises:
      UsageError: with what was received, and what would be right.
    """
    check_text(arguments)
    with _explained():
        if default is None:
            return tyro.cli(kind, args=arguments, prog=command)
        return tyro.cli(kind, args=arguments, prog=command, default=default)


def parse_known(kind: type[T], arguments: Sequence[str], command: str) -> tuple[T, list[str]]:
    """As ``parse``, but returns the arguments that are not of ``kind`` beside it.

    Raises:
      UsageError: as ``parse``.
    """
    check_text(arguments)
    with _explained():
        return tyro.cli(kind, args=arguments, prog=command, return_unknown_args=True)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as end:
        if not end.code:
            raise  # --help
        raise UsageError(_sentence(said.getvalue())) from None


def _sentence(box: str) -> str:
    """What a box of tyro's says: its first paragraph, and the options that its others describe."""
    lines = [line.strip("│| ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:-1]]
    paragraphs = "\n".join("" if set(line) <= set("─-") else line for line in lines).strip().split("\n\n")
    what = re.sub(r"^Error parsing ", "", " ".join(paragraphs[0].split()).rstrip("."))
    described = [line for paragraph in paragraphs[1:] for line in paragraph.splitlines() if line.startswith("--")]
    options = list(dict.fromkeys(described))[:3]
    right = f"; {' or '.join(options)} would be right" if options else "; --help lists what there is"
    return f"{what[:1].lower()}{what[1:]}{right}"
