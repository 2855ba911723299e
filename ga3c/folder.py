"""A run's folder: made, held while a run writes to it, and what is written there before anything is trained."""

import contextlib
import datetime
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ga3c.config import TrainConfig
from ga3c.errors import UsageError
from ga3c.presets import check_out


@contextlib.contextmanager
def own_folder(config: TrainConfig) -> Iterator[Path]:
    """The run's folder, made if it is not resumed; no other run may write to it meanwhile, or after a kill may.

    Raises:
      UsageError: it cannot be made, or another run writes to it.
    """
    option, folder = ("--resume", config.resume) if config.resume is not None else ("--out", make_folder(config))
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise UsageError(f"{option}: another run writes to {folder} now; another folder would be right") from None
    except OSError:  # a file system without locks
        pass
    try:
        if config.resume is None:
            check_out(folder)
        yield folder
    finally:
        os.close(fd)


def make_folder(config: TrainConfig) -> Path:
    """Makes the folder of a new run: the one that is asked for, or one of its own.

    Raises:
      UsageError: it cannot be made.
    """
    now = datetime.datetime.now()
    name = re.sub(r"[^\w.-]+", "-", config.env)
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):  # several runs may begin in the same second
        folder = config.out or Path("runs") / f"{name}-{config.mode}-{now:%Y%m%d-%H%M%S}{suffix}"
        try:
            folder.mkdir(parents=True, exist_ok=config.out is not None)
            return folder
        except OSError as error:
            if config.out is not None or not isinstance(error, FileExistsError):
                raise UsageError(f"--out: {folder} cannot be written to: {error.strerror}") from None
    raise UsageError(f"--out: {folder} and 998 more are there already; another folder would be right")


def write_settings(folder: Path, config: TrainConfig, facts: dict[str, Any]) -> None:
    """Writes ``run.json``, what is known of the run, and ``config.json``, which makes the folder a run's.

    Raises:
      OSError: they cannot be written.
    """
    _write_json(folder / "run.json", facts)
    _write_json(folder / "config.json", config.to_json())


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """Atomically: an interrupted resume must not cost the run its configuration."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(values, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
