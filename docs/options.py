"""Writes options.md: every option of every command, from the dataclasses that the command line reads.

    python docs/options.py

A test compares the page with what this gives, so that it cannot be out of date.
"""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin, get_type_hints
from unittest import mock

import docstring_parser
from tyro import conf

from ga3c import cli
from ga3c.config import TrainConfig
from ga3c.envs import EnvSpec
from ga3c.presets import default_config

PAGE = Path(__file__).with_name("options.md")
HEAD = """# Options

`ga3c COMMAND --help` prints the same, with the defaults that hold on your machine. This page is written by
`python docs/options.py` from the program itself.

A value that cannot be used is answered with one sentence and exit code 2, before anything is written.

The defaults of `ga3c train` are those of preset `fast` for images on 2 cores;
[what presets and modes change](#what-presets-and-modes-change) has the others.
"""
PRESETS = """### What presets and modes change

What differs between them, on {cores} cores without a GPU. `ga3c train --mode MODE --help` says it for your machine.
States that are no images are vectors. `fast` has two actors a core, `--mode a3c` a worker a core. An option that a mode
does not use is refused.
"""
# The sections of ga3c train's table: each begins with one of its options.
SECTIONS = {
    "env": "The run",
    "actors": "Counts and queues (GA3C)",
    "network": "Network and device",
    "optimiser": "Learning",
    "backend": "The environment",
}
CORES = 8  # of the machine that they are given for
METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


class Asked(Exception):  # noqa: N818  (it carries an answer)
    """Carries the dataclass that a command reads its options into."""


def commands() -> dict[str, str]:
    """Each command of ``ga3c`` with what it does, as ``ga3c --help`` says it."""
    lines = (line.strip() for line in cli.USAGE.splitlines() if line.startswith("  "))
    return {usage.split()[0]: what.strip() for usage, what in (line.split("  ", 1) for line in lines)}


def options_of(command: str) -> type[Any]:
    """The dataclass that a command reads; the command is asked for its help, and stopped before it gives it."""

    def stop(kind: type[Any], **_: Any) -> NoReturn:
        raise Asked(kind)

    with mock.patch("tyro.cli", stop):
        try:
            cli.run([command, "--help"])
        except Asked as asked:
            kind: type[Any] = asked.args[0]
            return kind
    raise LookupError(f"{command} --help reads no options")


def render() -> str:
    """The page."""
    parts = [HEAD]
    for command, what in commands().items():
        kind = options_of(command)
        more = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[2]
        parts.append(f"## ga3c {command}\n\n{what[0].upper()}{what[1:]}.\n" + (f"\n{more}\n" if more else ""))
        parts += _tables(kind)
        if command == "train":
            parts += [PRESETS.format(cores=CORES), _presets()]
    return "\n".join(parts)


def _tables(kind: type[Any]) -> list[str]:
    """The options of a dataclass, those of ``ga3c train`` in sections."""
    described = {p.arg_name: p.description or "" for p in docstring_parser.parse_from_object(kind).params}
    tables: list[str] = []
    lines: list[str] = []
    for field in dataclasses.fields(kind):
        if not lines or (kind is TrainConfig and field.name in SECTIONS):
            title = [f"### {SECTIONS[field.name]}", ""] if kind is TrainConfig else []
            lines = [*title, "| option | default | |", "|---|---|---|"]
            tables.append("")
        words = " ".join(described[field.name].split()).replace("<", "&lt;").replace("|", "\\|")
        lines.append(f"| {_spelling(kind, field)} | {_default(field)} | {words} |")
        tables[-1] = "\n".join(lines) + "\n"
    return tables


def _spelling(kind: type[Any], field: dataclasses.Field[Any]) -> str:
    """What a user types."""
    hint = get_type_hints(kind, include_extras=True)[field.name]
    markers: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        markers = tuple(rest)
    if conf.Positional in markers:
        return f"`{field.name.upper()}`"
    option = f"--{field.name.replace('_', '-')}"
    if hint is bool:
        return f"`{option}`" if conf.FlagCreatePairsOff in markers else f"`{option}`, `--no-{option[2:]}`"
    return f"`{option} {_metavar(hint)}`"


def _metavar(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    if get_origin(hint) is tuple:
        return f"{_metavar(get_args(hint)[0])} ..."
    if get_args(hint):  # or None
        return _metavar(next(one for one in get_args(hint) if one is not type(None)))
    return METAVARS[hint]


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is dataclasses.MISSING or value is None or value == ():
        return ""
    return _value(value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else f"`{value}`" if isinstance(value, str) else str(value)


def _presets() -> str:
    image = EnvSpec("Pong-v5", "envpool", (4, 84, 84), "uint8", 6, 4, "pong", "")
    vector = EnvSpec("CartPole-v1", "gymnasium", (4,), "float32", 2, 1, None, "")
    with mock.patch("os.sched_getaffinity", return_value=range(CORES)):
        columns = {
            "`fast`, images": default_config("ga3c", "fast", image, cuda=False),
            "`fast`, vectors": default_config("ga3c", "fast", vector, cuda=False),
            "`paper`": default_config("ga3c", "paper", image, cuda=False),
            "`--mode a3c`": default_config("a3c", "fast", image, cuda=False),
            "`--mode a2c`": default_config("a2c", "fast", image, cuda=False),
        }
    lines = [f"| option | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for field in dataclasses.fields(TrainConfig):
        values = [_value(getattr(config, field.name)) for config in columns.values()]
        if len(set(values)) > 1 and field.name not in ("mode", "preset"):
            lines.append(f"| `--{field.name.replace('_', '-')}` | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(re.sub(r"\n{3,}", "\n\n", render()), encoding="utf-8")
