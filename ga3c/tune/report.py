"""What the tuner shows while it searches, and leaves when it is done: preset, record, table and picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ga3c.tune.search import Objective, Setting, Trials

PRESET, RECORD, TABLE, PICTURE = "preset.json", "trials.jsonl", "trials.md", "trials.png"
_HEADINGS = ("actors", "envs", "predictors", "trainers", "training batch from", "prediction batch to")
_AXES = {"pps": "predictions a second (PPS)", "training_samples": "training samples a second"}
_SHOWN = 8


def live_table(trials: Trials, left_s: float, now: str) -> Table:
    """The best settings so far, for a terminal."""
    title = f"ga3c tune: {now}; {max(0, round(left_s))} s left"
    table = Table(title=title, title_justify="left")
    for heading in (*_HEADINGS, "a second", "lag", "windows"):
        table.add_column(heading, justify="right")
    for setting in trials.ranking()[:_SHOWN]:
        table.add_row(*map(str, setting), *_figures(trials, setting))
    return table


def _figures(trials: Trials, setting: Setting) -> tuple[str, str, str]:
    windows = trials.counted(setting)
    error = f" ± {trials.error(setting):.0f}" if windows > 1 else ""
    return f"{trials.mean(setting):,.0f}{error}", f"{trials.lag(setting):.2f}", str(windows)


def in_words(setting: Setting) -> str:
    """One phrase."""
    return (
        f"{setting.actors} actors x {setting.envs_per_actor} environments, {setting.predictors} predictors,"
        f" {setting.trainers} trainers, training batch from {setting.min_training_batch},"
        f" prediction batch to {setting.max_prediction_batch}"
    )


def write_preset(path: Path, base: str, options: dict[str, Any], found: dict[str, Any]) -> None:
    """A file for ``ga3c train --preset``; ``found`` says for what, and on what, it was measured."""
    values = {"preset": base, "options": options, "found": found}
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_record(path: Path, trials: Trials) -> None:
    """A line for each setting, with every window."""
    lines = [
        json.dumps({**setting._asdict(), "windows": [window._asdict() for window in windows]})
        for setting, windows in trials.windows.items()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_table(path: Path, trials: Trials, start: Setting, choice: Setting, objective: Objective, about: str) -> None:
    """Every setting that was tried, the best first."""
    lines = [
        "# Settings that were tried",
        "",
        about,
        "",
        f"| {' | '.join(_HEADINGS)} | {_AXES[objective]}, ± standard error | policy lag | windows | |",
        f"|{'---:|' * (len(_HEADINGS) + 3)}---|",
    ]
    for setting in trials.ranking():
        remarks = [word for word, which in (("chosen", choice), ("the search began here", start)) if setting == which]
        if not trials.is_within_bound(setting):
            remarks.append("lags too far behind")
        cells = [*map(str, setting), *_figures(trials, setting), ", ".join(remarks)]
        lines.append(f"| {' | '.join(cells)} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw(path: Path, trials: Trials, start: Setting, choice: Setting, objective: Objective, about: str) -> None:
    """Rate over the number of games, a mark for each setting with its standard error; matplotlib is an extra."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    within = [s for s in trials.windows if trials.is_within_bound(s)]
    beyond = [s for s in trials.windows if not trials.is_within_bound(s)]
    _marks(axes, trials, within, "o", "#1d4e89", "tried")
    _marks(axes, trials, beyond, "x", "#999999", "tried, lags too far behind")
    _marks(axes, trials, [start], "s", "#f4a259", "the search began here")
    _marks(axes, trials, [choice], "D", "#c8553d", "chosen")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("games (actors x environments)")
    axes.set_ylabel(_AXES[objective])
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.set_title(f"{in_words(choice)}\n{about}", fontsize=8, loc="left", wrap=True)
    figure.savefig(path, dpi=150)


def _marks(axes: Any, trials: Trials, settings: Sequence[Setting], marker: str, colour: str, label: str) -> None:
    if not settings:
        return
    errors = [trials.error(s) if trials.counted(s) > 1 else 0.0 for s in settings]
    axes.errorbar(
        [s.actors * s.envs_per_actor for s in settings],
        [trials.mean(s) for s in settings],
        errors,
        linestyle="none",
        marker=marker,
        color=colour,
        capsize=2,
        label=label,
    )
