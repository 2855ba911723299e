"""What a user sees while games are evaluated, on standard error: a bar on a terminal, else a line now and then."""

import itertools
import time
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ga3c.display import make_console, say_error

_LINE_S = 30.0  # between lines, where there is no terminal
_LOOK_S = 0.1  # between updates of the bar
# A game counts as one that may not end after so many steps, or if no game at all has ended for so many seconds.
_LONG_S, _LONG_STEPS = 60.0, 100_000


class Standing(NamedTuple):
    """How an evaluation stands.

    Fields:
      done: games that have ended, or were cut.
      steps: agent steps of all environments together.
      lengths: [K] int64, agent steps of the games that are being played; 0 where an environment has played its share.
    """

    done: int
    steps: int
    lengths: NDArray[np.int64]


class EvalProgress:
    """Shows the evaluations of one command; used as a context."""

    def __init__(self, *, is_limited: bool) -> None:
        """``is_limited``: games that do not end are cut."""
        self._is_limited = is_limited
        console = make_console(stderr=True)
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                TextColumn("games, {task.fields[steps]:,} steps"), TimeElapsedColumn(),
            )  # fmt: skip
            # Results are printed to standard output, which must not come out on standard error.
            self._bar = Progress(*columns, console=console, transient=True, redirect_stdout=False)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, title: str, env: str, games: int) -> None:
        """The evaluation of one run begins: that many games of the environment with id ``env``."""
        self._title, self._env, self._games = title, env, games
        self._began = self._looked = self._said = self._ended = time.monotonic()
        self._done, self._has_warned = 0, self._is_limited
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._task = self._bar.add_task(title, total=games, steps=0)

    def show(self, standing: Standing) -> None:
        """Called after every step."""
        now = time.monotonic()
        if standing.done != self._done:
            self._done, self._ended = standing.done, now
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        if self._bar is not None:
            self._bar.update(self._task, completed=standing.done, steps=standing.steps)
        elif now - self._said >= _LINE_S:
            self._said = now
            took = f"{standing.steps:,} steps, {now - self._began:.0f} s"
            say_error(f"ga3c eval: {self._title}: {standing.done} of {self._games} games, {took}")
        if not self._has_warned:
            self._warn_of_long_games(standing, now - self._ended)

    def _warn_of_long_games(self, standing: Standing, since_s: float) -> None:
        """Once."""
        long = standing.lengths >= (_LONG_STEPS if since_s < _LONG_S else 1)
        if not long.any():
            return
        self._has_warned = True
        words = "environment" if long.sum() == 1 else "environments"
        text = (
            f"ga3c eval: {words} {ranges(np.flatnonzero(long))} of {self._env}: the game has not ended after"
            f" {standing.lengths.max():,} steps; --max-episode-steps N cuts games after N steps"
        )
        if self._bar is None:
            say_error(text)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


def ranges(numbers: Iterable[int]) -> str:
    """Numbers in words, each once: ``0 to 3, 7, 8``."""
    found: list[str] = []
    for _, group in itertools.groupby(enumerate(sorted({int(n) for n in numbers})), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        found += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
    return ", ".join(found)
