"""What a user sees while a comparison goes on: one bar over all of its cells, or plain lines without a terminal."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ga3c.display import make_console, say

_FIRST_OVERHEAD_S = 8.0  # a run's start and end, until the first has shown it


class GridProgress:
    """Cells done, the cell that runs, and the time left; used as a context."""

    def __init__(self, minutes: list[float], *, are_limits: bool) -> None:
        """``minutes`` are those of each cell to come; ``are_limits`` if a cell may end before."""
        self._total = len(minutes)
        self._done = 0
        self._left_s = 60 * sum(minutes)
        self._overheads: list[float] = []
        self._at_most = "at most " if are_limits else ""
        self._cell_s = self._began = 0.0
        console = make_console()
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[left]}  {task.description}"))
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("", total=self._total, left="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            say(text)

    def begin(self, title: str, minutes: float) -> None:
        """A cell begins."""
        self._began, self._cell_s = time.monotonic(), 60 * minutes
        if self._bar is not None:
            self._bar.update(self._task, description=title)
        else:
            say(f"[{self._done + 1}/{self._total}] {title}; {self.left}")
        self.tick()

    def tick(self) -> None:
        """Shows the time left; called a few times a second."""
        if self._bar is not None:
            share = min(0.99, (time.monotonic() - self._began) / max(self._cell_s, 1.0))
            self._bar.update(self._task, completed=self._done + share, left=self.left)

    def end(self, text: str) -> None:
        """The cell ended, as ``text`` says."""
        self._overheads.append(max(0.0, time.monotonic() - self._began - self._cell_s))
        self._done += 1
        self._left_s -= self._cell_s
        self._cell_s = 0.0
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, left=self.left)
        self.say(f"[{self._done}/{self._total}] {text}")

    @property
    def left(self) -> str:
        """The time left of the whole comparison, in words."""
        overhead = sum(self._overheads) / len(self._overheads) if self._overheads else _FIRST_OVERHEAD_S
        running_s = time.monotonic() - self._began if self._cell_s else 0.0
        left = self._left_s - min(running_s, self._cell_s) + overhead * (self._total - self._done)
        minutes, seconds = divmod(max(0, round(left)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{self._at_most}{hours}:{minutes:02d}:{seconds:02d} left"
