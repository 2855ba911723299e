"""The command ``ga3c report``: reads runs and comparisons, and writes one HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ga3c.agents import count, group_runs
from ga3c.compare.record import read_records
from ga3c.display import say_error
from ga3c.errors import UsageError
from ga3c.options import parse
from ga3c.report.runs import Run, is_run, read_run

if TYPE_CHECKING:
    from ga3c.report.page import Section

EXTRA = ("plotly", "jinja2", "scipy")
_MOST_CLIPS = 2  # of a run


@dataclass(frozen=True)
class ReportOptions:
    """Writes one HTML file about runs and comparisons: curves, rates, lag, queues, time, settings, clips."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Folders of runs, which may still go on, and of comparisons."""
    out: Path = Path("report.html")
    """The file; one that is there is replaced."""


def run_report(arguments: list[str]) -> int:
    """Returns the exit code.

    Raises:
      UsageError: the user asked for what cannot be had.
    """
    options = parse(ReportOptions, arguments, "ga3c report")
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise UsageError(f"report needs {' and '.join(missing)}; pip install 'ga3c[report]' would be right")
    from ga3c.report import comparison, page  # here, since their libraries are an extra

    page.check_writable(options.out)
    names = _names(options.paths)
    runs = [read_run(path, name) for path, name in names.items() if is_run(path)]
    records = {name: read_records([path]) for path, name in names.items() if not is_run(path)}
    sections = _of_runs(runs) if runs else []
    sections += [comparison.section(rows, name) for name, rows in records.items()]
    what = [count(len(found), word) for found, word in ((runs, "run"), (records, "comparison")) if found]
    envs = dict.fromkeys([r.config.env for r in runs] + [str(v[0]["comparison"]["env"]) for v in records.values()])
    page.write_page(options.out, ", ".join(envs), " and ".join(what), sections)
    for run in runs:
        for note in run.notes:
            say_error(f"ga3c report: {run.name}: {note}")
    print(f"{' and '.join(what)}: {options.out}, {options.out.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return 0


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """The folders by what they are called: the last part of the path, or the path where that is not clear.

    Raises:
      UsageError: there are none, or one of them is neither a run nor a comparison.
    """
    if not paths:
        raise UsageError("got no folder; those of runs or comparisons would be right")
    resolved = [path.resolve() for path in paths]
    for path, whole in zip(paths, resolved, strict=True):
        if not path.exists():
            raise UsageError(f"{path} does not exist; the folder of a run or of a comparison would be right")
        if not (is_run(path) or (path / "results.jsonl").is_file()):
            raise UsageError(f"{path} is neither a run's folder nor a comparison's: no config.json, no results.jsonl")
        if resolved.count(whole) > 1:
            raise UsageError(f"got {path} more than once; each folder once would be right")
    names = [whole.name for whole in resolved]
    return {path: n if names.count(n) == 1 else str(path) for path, n in zip(paths, names, strict=True)}


def _of_runs(runs: Sequence[Run]) -> "list[Section]":
    """The sections about runs, in the order of the page."""
    from ga3c.report import charts, tables
    from ga3c.report.page import Section, read_clips

    groups = group_runs(runs, lambda run: run.config)
    clips, too_large = read_clips(
        [(f"{run.name}: {c.name}", c) for run in runs for c in run.clips[: -_MOST_CLIPS - 1 : -1]]
    )
    return [
        Section(
            "Runs",
            notes=[f"{run.name}: {note}" for run in runs for note in run.notes],
            tiles=tables.tiles(groups),
            charts=charts.learning(groups),
            tables=[tables.runs(groups), *tables.scores(groups)],
        ),
        Section("Clips", "The newest of each run.", notes=too_large, clips=clips),
        Section("Throughput", charts=charts.throughput(groups)),
        Section("Where the time goes", facts=tables.bottlenecks(groups), charts=charts.time(groups)),
        Section("Policy lag", charts=charts.lag(groups)),
        Section("Queues and batches", charts=charts.queues(groups)),
        Section("Updates", charts=charts.inside(groups), tables=tables.steps(groups)),
        Section("Settings and circumstances", tables=[tables.circumstances(groups), *tables.settings(groups)]),
    ]
