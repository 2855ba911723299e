"""What a user sees while a run goes on: a live panel on a terminal, plain lines elsewhere."""

import contextlib
import sys
from types import TracebackType
from typing import Any, Protocol, Self, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ga3c.bottleneck import find_bottleneck


class _Stream:
    """Writes to a standard stream and never raises: a run must not end because nobody can read what it says.

    The stream may be missing (None), closed by a user's module, a pipe without a reader, or not encode a character.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
                self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("there is no such stream")
        return self._stream.fileno()


def make_console(*, stderr: bool = False) -> Console:
    """A console on standard output, or standard error, that never raises."""
    # Not a TextIO in full: these are the methods that rich calls.
    return Console(file=cast("TextIO", _Stream(sys.stderr if stderr else sys.stdout)))


def say(text: str) -> None:
    """Prints a line to standard output; never raises."""
    print(text, file=cast("TextIO", _Stream(sys.stdout)), flush=True)


class Display(Protocol):
    """Shows a run; used as a context."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def say(self, text: str) -> None:
        """Prints a line that stays."""

    def show(self, rates: dict[str, Any], progress: float | None, left_s: float | None) -> None:
        """Shows the newest window: a ``"rates"`` line, the share done and the seconds left, if they are known."""


def make_display(title: str, *, on_cpu: bool, quiet: bool = False) -> Display:
    """A panel where standard output is a terminal, else lines; ``on_cpu``: the model shares the games' cores."""
    if quiet:
        return _NoDisplay()
    console = make_console()
    if console.is_terminal:
        return _PanelDisplay(console, title, on_cpu)
    return _PlainDisplay(on_cpu, simulated="SIMULATED" in title)


class _NoDisplay:
    """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def show(self, rates: dict[str, Any], progress: float | None, left_s: float | None) -> None:
        pass


class _PlainDisplay(_NoDisplay):
    """One line a window."""

    def __init__(self, on_cpu: bool, *, simulated: bool = False) -> None:
        self._on_cpu = on_cpu
        self._simulated = simulated
        self._held_back_by: str | None = None  # as last said

    def say(self, text: str) -> None:
        say(text)

    def show(self, rates: dict[str, Any], progress: float | None, left_s: float | None) -> None:
        parts = [
            *(["SIMULATED"] if self._simulated else []),
            _duration(rates["time_s"]),
            f"steps {rates['env_steps']:,}",
            f"return {_number(rates['episode_return_mean'])}",
            f"PPS {_number(rates['pps'])}",
            f"TPS {_number(rates['tps'])}",
            f"samples/s {_number(rates['training_samples_per_s'])}",
            f"lag {_number(rates['policy_lag_mean'])}",
            f"entropy {_number(rates['entropy'])}",
        ]
        if progress is not None and left_s is not None:
            parts.append(f"{progress:.0%}, {_duration(left_s)} left")
        self.say("  ".join(parts))
        bottleneck = find_bottleneck(rates, on_cpu=self._on_cpu)
        if bottleneck is not None and bottleneck.what != self._held_back_by:
            self._held_back_by = bottleneck.what
            self.say(f"  {bottleneck}")


class _PanelDisplay:
    """A panel that is redrawn in place."""

    def __init__(self, console: Console, title: str, on_cpu: bool) -> None:
        self._title = title
        self._on_cpu = on_cpu
        self._live = Live(console=console, refresh_per_second=4, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def show(self, rates: dict[str, Any], progress: float | None, left_s: float | None) -> None:
        self._live.update(draw_panel(self._title, rates, progress, left_s, on_cpu=self._on_cpu), refresh=True)


def draw_panel(
    title: str, rates: dict[str, Any], progress: float | None, left_s: float | None, *, on_cpu: bool
) -> Panel:
    """The panel as a rich renderable."""
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in range(3):
        table.add_column(style="dim")
        table.add_column(justify="right", style="bold")
    cells = [
        ("time", _duration(rates["time_s"])),
        ("agent steps", f"{rates['env_steps']:,}"),
        ("frames", f"{rates['frames']:,}"),
        ("PPS", _number(rates["pps"])),
        ("TPS", _number(rates["tps"])),
        ("training samples/s", _number(rates["training_samples_per_s"])),
        ("prediction batch", _number(rates["prediction_batch_mean"])),
        ("training batch", _number(rates["training_batch_mean"])),
        ("updates", f"{rates['updates']:,}"),
        ("prediction queue", f"{_number(rates['prediction_queue_depth'])} requests"),
        ("training queue", f"{_number(rates['training_queue_depth'])} samples"),
        (
            "policy lag mean / max",
            f"{_number(rates['policy_lag_mean'])} / {_number(rates['policy_lag_max'])}",
        ),
        ("actors wait", _share(rates["actor_wait_share"])),
        ("predictors wait", _share(rates["predictor_wait_share"])),
        ("trainers wait", _share(rates["trainer_wait_share"])),
        ("policy loss", _number(rates["policy_loss"])),
        ("value loss", _number(rates["value_loss"])),
        ("entropy", _number(rates["entropy"])),
        ("learning rate", _number(rates["learning_rate"])),
        ("gradient norm", _number(rates["gradient_norm"])),
        ("return, last 100", _number(rates["episode_return_mean"])),
    ]
    for row in range(0, len(cells), 3):
        table.add_row(*(text for cell in cells[row : row + 3] for text in cell))
    bottleneck = find_bottleneck(rates, on_cpu=on_cpu)
    words = Text("" if bottleneck is None else str(bottleneck), style="dim")
    if progress is None:
        foot = Text("no budget: runs until Ctrl-C", style="dim")
        return Panel(Group(table, words, foot), title=title)
    bar = Table.grid(padding=(0, 2))
    bar.add_row(ProgressBar(total=1.0, completed=progress, width=50), f"{progress:.1%}", f"{_duration(left_s)} left")
    return Panel(Group(table, words, bar), title=title)


def say_error(text: str) -> None:
    """Prints a line to standard error; never raises."""
    print(text, file=cast("TextIO", _Stream(sys.stderr)), flush=True)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 0.01 or value == 0 else f"{value:.2e}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
