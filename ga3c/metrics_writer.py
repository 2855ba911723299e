"""Writes what a run measures: ``metrics.jsonl``, and event files for TensorBoard."""

import contextlib
import errno
import json
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LINES_KEPT = 100_000  # that could not be written yet; a day of play


class MetricsWriter:
    """Appends to ``metrics.jsonl``, and to TensorBoard event files where that package is installed."""

    def __init__(self, folder: Path, resumed_steps: int | None = None) -> None:
        """Continues the file if it is there.

        ``resumed_steps``: agent steps of the checkpoint that is resumed; None in a new run. A killed run may have
        written lines after that checkpoint: TensorBoard stops showing those, so that it shows no step twice.
        """
        path = folder / "metrics.jsonl"
        self._file = path.open("ab", buffering=0)
        _drop_torn_line(path)
        self._waiting: deque[dict[str, Any]] = deque(maxlen=LINES_KEPT)
        self._on_board = -1 if resumed_steps is None else resumed_steps  # newest step that TensorBoard shows
        self._board = _tensorboard(folder, None if resumed_steps is None else resumed_steps + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, lines: list[dict[str, Any]]) -> None:
        """Appends whole lines. Those that cannot be written now wait for the next call.

        Raises:
          OSError: the disk is full, or cannot be written; the file ends with a whole line.
        """
        self._waiting.extend(lines)
        text = "".join(json.dumps(line) + "\n" for line in self._waiting).encode()
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(text)
            if written != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(size)
            raise
        for line in self._waiting:
            if line["kind"] == "rates":  # hundreds of episodes a second would hold up the run
                self._to_board(line)
        self._waiting.clear()

    def _to_board(self, line: Mapping[str, Any]) -> None:
        step = line["env_steps"]
        if self._board is None or step <= self._on_board:
            return
        self._on_board = step
        try:
            for name, figure in line.items():
                if isinstance(figure, int | float) and name not in ("env_steps", "time_s"):
                    self._board.add_scalar(f"{line['kind']}/{name}", figure, step)
        except OSError:  # Its own thread could not write; what it shows is in metrics.jsonl too.
            self._board = None

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.close()


def _drop_torn_line(path: Path) -> None:
    """Cuts what a run that was killed while it wrote has left behind the last whole line."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        while size:
            began = max(0, size - 65536)
            file.seek(began)
            newline = file.read(size - began).rfind(b"\n")
            if newline >= 0:
                size = began + newline + 1
                break
            size = began
        file.truncate(size)


def _tensorboard(folder: Path, purge_step: int | None) -> Any:
    """A writer of event files, or None where tensorboard is not installed (it is an extra).

    None too where the folder's path is not UTF-8, which tensorboard cannot write to. What was written before for
    ``purge_step`` and later steps is not shown any more.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder), purge_step=purge_step)
    except (ImportError, UnicodeEncodeError):
        return None
