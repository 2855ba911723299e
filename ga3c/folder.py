"""A run's folder: made, held while a run writes to it, what is written there at first, and which checkpoints it holds.

Without torch, so that a slip of the finger is answered at once.
"""

import contextlib
import datetime
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ga3c.config import TrainConfig
from ga3c.errors import UsageError, check_text
from ga3c.surroundings import permit, shown

FORMAT = 2  # of checkpoints
_NAME = re.compile(r"checkpoint-(\d+)\.safetensors")


@contextlib.contextmanager
def own_folder(config: TrainConfig, here: Path) -> Iterator[Path]:
    """The run's folder, made if it is not resumed. No other run may write to it meanwhile; a kill, too, sets it free.

    Folders of runs that have not been given one lie in ``here``.

    Raises:
      UsageError: it cannot be made, or another run writes to it.
    """
    option, folder = ("--resume", config.resume) if config.resume is not None else ("--out", make_folder(config, here))
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise UsageError(
            f"{option}: another run writes to {shown(folder)} now; another folder would be right"
        ) from None
    except OSError:  # a file system without locks
        pass
    try:
        if config.resume is None:
            check_out(folder)
        yield folder
    finally:
        os.close(fd)


def make_folder(config: TrainConfig, here: Path) -> Path:
    """Makes the folder of a new run: the one that is asked for, or one of its own in ``here``.

    Raises:
      UsageError: it cannot be made.
    """
    now = datetime.datetime.now()
    name = re.sub(r"[^\w.-]+", "-", config.env)
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):  # several runs may begin in the same second
        folder = config.out or here / "runs" / f"{name}-{config.mode}-{now:%Y%m%d-%H%M%S}{suffix}"
        try:
            folder.mkdir(parents=True, exist_ok=config.out is not None)
            return folder
        except OSError as error:
            if config.out is not None or not isinstance(error, FileExistsError):
                raise UsageError(f"--out: {shown(folder)} cannot be written to: {error.strerror}") from None
    raise UsageError(f"--out: {shown(folder)} and 998 more are there already; another folder would be right")


def check_out(folder: Path) -> None:
    """Refuses a folder that a run cannot be written to.

    Raises:
      UsageError: it holds another run, or cannot be made.
    """
    try:
        if (folder / "config.json").exists():
            right = f"--resume {shown(folder)} would go on with it"
            if not list_checkpoints(folder):
                right = "it was stopped before its first update, so another folder would be right"
            raise UsageError(f"--out: {shown(folder)} holds a run already; {right}")
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        cause = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"--out: {shown(folder)} cannot be written to: {cause}") from None
    try:
        tempfile.TemporaryDirectory(dir=there).cleanup()  # what may be written is not all that permissions say
    except OSError as error:
        raise UsageError(f"--out: {shown(folder)} cannot be written to: {error.strerror}") from None


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
            permit(file.fileno())
            file.write(json.dumps(values, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(p for p in folder.glob("checkpoint-*.safetensors") if _NAME.fullmatch(p.name))


def find_checkpoint(path: Path) -> Path:
    """A checkpoint itself, or the newest of a run's folder.

    Raises:
      UsageError: there is none.
    """
    check_text([str(path)])
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"{shown(path)} does not exist; a run's folder or a checkpoint would be right")
    found = list_checkpoints(path)
    if not found:
        raise UsageError(f"{shown(path)} holds no checkpoint")
    return found[-1]


def check_checkpoint(path: Path) -> None:
    """Looks for a checkpoint, or for any in a run's folder: one may be damaged, and the one before it whole.

    Raises:
      UsageError: there is none, or the file is none.
    """
    found = find_checkpoint(path)
    if found == path:
        read_metadata(path)


def read_metadata(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
      UsageError: it is damaged, or of another version; the message names the file and the cause.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata: dict[str, Any] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{shown(path)} cannot be read as a checkpoint: {error}") from None
    if metadata.get("format") != str(FORMAT):
        raise UsageError(
            f"{shown(path)} has checkpoint format {metadata.get('format')}; this version of ga3c reads {FORMAT}"
        )
    return metadata
