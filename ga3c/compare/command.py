"""The command ``ga3c compare``: measures or reads a record, then writes the report and the pictures."""

import re
from importlib.util import find_spec
from pathlib import Path

from ga3c.compare.cells import Row, cell_of
from ga3c.compare.grid import Stopped, check_folder, compare, failures
from ga3c.compare.options import CompareOptions, resolve
from ga3c.compare.record import command_again, read_records
from ga3c.compare.report import speed_up_lines, write_report
from ga3c.display import say_error
from ga3c.errors import UsageError
from ga3c.options import parse_known
from ga3c.surroundings import Surroundings

EXTRA = ("matplotlib", "scipy")


def run_compare(arguments: list[str]) -> int:
    """Returns the exit code.

    Raises:
      UsageError: the user asked for what cannot be had.
    """
    options, rest = parse_known(CompareOptions, arguments, "ga3c compare")
    check_extra()
    if options.plot_only:
        return _plot(options, rest)
    surroundings = Surroundings.now()
    what = resolve(options, rest)
    surroundings.restore()  # the environment's module may have changed them
    folder = options.out or Path("runs") / f"compare-{re.sub(r'[^A-Za-z0-9_.-]+', '-', options.env)}"
    check_folder(folder)
    try:
        rows = compare(what, folder, keep_runs=options.keep_runs)
    except Stopped as stop:
        say_error(f"stopped; what is done lies in {folder}, and the same command with --out {folder} goes on with it")
        return stop.exitcode
    draw(rows, folder, with_published=options.published)
    failed = failures(rows)
    for row in failed:
        say_error(f"ga3c compare: {cell_of(row).title} failed: {row['error'].splitlines()[-1]}")
    if failed:
        say_error(f"ga3c compare: this repeats the failed runs, and nothing else: {command_again(rows, folder)}")
    return 1 if failed else 0


def check_extra() -> None:
    """Looks for what draws, before the time for measuring is spent.

    Raises:
      UsageError: it is not installed.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise UsageError(f"compare needs {' and '.join(missing)}; pip install 'ga3c[compare]' would be right")


def _plot(options: CompareOptions, rest: list[str]) -> int:
    if rest:
        raise UsageError(f"--plot-only runs nothing, got {' '.join(rest)}; leave it out")
    if len(options.plot_only) > 1 and options.out is None:
        raise UsageError("--plot-only: got several records; --out with a folder for the pictures would be right")
    rows = read_records(options.plot_only)
    folder = options.out or options.plot_only[0]
    check_folder(folder)
    draw(rows, folder, with_published=options.published)
    return 0


def draw(rows: list[Row], folder: Path, *, with_published: bool) -> None:
    """Writes the pictures and the report into ``folder``, and prints what came out.

    Raises:
      UsageError: the folder cannot be written to.
    """
    from ga3c.compare.charts import draw_all  # here, since its library is an extra

    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = draw_all(rows, folder, with_published=with_published)
        report = write_report(rows, pictures, folder)
    except OSError as error:
        raise UsageError(f"--out: {folder} cannot be written to: {error.strerror}") from None
    for line in speed_up_lines(rows):
        print(line)
    print(f"report: {report}, with {len(pictures)} pictures beside it")
