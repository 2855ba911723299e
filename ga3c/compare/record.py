"""The record of a comparison: ``results.jsonl``, one row a cell, from which everything else can be made again."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ga3c.compare.cells import Cell, Row, cell_of
from ga3c.errors import UsageError


class Record:
    """The rows of one folder. A cell's last row counts: one that failed is run again by the next call."""

    def __init__(self, folder: Path) -> None:
        """Reads what is there and makes sure that more can be written.

        Raises:
          UsageError: it cannot be read, or not be written to.
        """
        self._path = folder / "results.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                # A row that a kill cut short is not one; the next must not be appended to it.
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        except OSError as error:
            raise UsageError(f"--out: {folder} cannot be written to: {error.strerror}") from None
        self._rows = {cell_of(row).key: row for row in read_rows(folder)} if self._path.stat().st_size else {}

    @property
    def rows(self) -> list[Row]:
        """One a cell, in the order of their first attempts."""
        return list(self._rows.values())

    def done(self, cell: Cell) -> Row | None:
        """The row of a cell that was measured before and did not fail."""
        row = self._rows.get(cell.key)
        return row if row is not None and row["error"] is None else None

    def append(self, row: Row) -> None:
        """Adds a row, which is on the disk when this returns."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._rows[cell_of(row).key] = row

    def check_goes_on_with(self, row: Row) -> None:
        """Refuses to mix two comparisons in one folder.

        Raises:
          UsageError: the rows that are there have other settings than ``row``.
        """
        old, new = _fixed(self.rows[0]) if self._rows else {}, _fixed(row)
        for name in old:
            if old[name] != new.get(name):
                raise UsageError(
                    f"--out: {self._path.parent} holds a comparison with {name} {_words(old[name])}, not"
                    f" {_words(new.get(name))}; the same settings or another folder would be right"
                )


def _fixed(row: Row) -> dict[str, Any]:
    """What two calls on one folder must have in common, each with its name for the user."""
    options = {f"--{name.replace('_', '-')}": value for name, value in row["comparison"].items()}
    passed = {"options for ga3c train:": row["train_arguments"]}
    return options | passed | {"the machine": hardware_of(row["machine"])}


def command_again(rows: Sequence[Row], folder: Path) -> str:
    """What is typed to run the failed cells of a comparison again, and only them; ``rows`` are all of ``folder``'s.

    It has every default that was filled in, so that it means the same in a later release and on any machine.
    """
    first = rows[0]
    options: Row = {"repeats": max(1, *(row["cell"]["repeat"] for row in rows))}
    for name, value in first["comparison"].items():
        if name == "grid" and value:
            options |= {"grid": True, **{f"grid_{axis}": counts for axis, counts in value.items()}}
        elif value not in (None, False):
            options[name] = value
    words = ["ga3c", "compare"]
    for name, value in (options | {"out": folder}).items():
        words.append(f"--{name.replace('_', '-')}")
        words += [] if value is True else [_words(value)]
    return shlex.join([*words, *first["train_arguments"]])


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(counts)}" for name, counts in value.items())
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def read_rows(folder: Path) -> list[Row]:
    """The rows of a folder's record, whole or not.

    Raises:
      UsageError: it has none, or one that is no row.
    """
    path = folder / "results.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        for row in rows:
            cell_of(row), row["error"], row["machine"], row["comparison"]
    except FileNotFoundError:
        raise UsageError(f"{folder} has no results.jsonl; the folder of a comparison would be right") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} cannot be read: {type(error).__name__}: {error}") from None
    return rows


def read_records(folders: Sequence[Path]) -> list[Row]:
    """The rows of several records; where there are several, each row names its own under ``record``.

    Raises:
      UsageError: one cannot be read, or holds nothing.
    """
    rows: list[Row] = []
    names = [folder.resolve().name for folder in folders]
    for folder, name in zip(folders, names, strict=True):
        found = list({cell_of(row).key: row for row in read_rows(folder)}.values())
        if not found:
            raise UsageError(f"{folder}: its record is empty; that of a comparison that ran would be right")
        if len(folders) > 1:
            unique = name if names.count(name) == 1 else str(folder)
            found = [row | {"record": unique} for row in found]
        rows += found
    return rows


def hardware_of(machine: Row) -> str:
    """A machine in a few words."""
    cores = f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''} of {machine['cpu']}"
    return f"{cores}, {machine['gpu'] or 'no GPU'}"
