"""``report.md``: the tables of a comparison, and its pictures."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ga3c.compare.cells import Row
from ga3c.compare.figures import (
    is_simulated,
    label,
    labels,
    measured,
    networks,
    number,
    rate,
    role_shares,
    speed_ups,
)
from ga3c.compare.record import command_again, hardware_of
from ga3c.statistics import FEWEST_FOR_INTERVAL

RATES = {"pps": "PPS", "training_samples_per_s": "training samples/s"}
# Options that a comparison varies by itself; whatever else differs is listed.
_NOT_SETTINGS = (
    "mode",
    "network",
    "seed",
    "out",
    "resume",
    "device",
    "minutes",
    "total_steps",
    "checkpoint_every",
    "keep",
)
SIMULATED = "simulated: a device that only waits, as a latency curve says; no figure of a real one"


def write_report(rows: Sequence[Row], pictures: Sequence[Path], folder: Path) -> Path:
    """Writes the report and returns its path. ``pictures`` lie in ``folder``."""
    parts = [
        _head(rows), _throughput(rows), _speed_up_table(rows), _scores(rows), _time(rows), _differences(rows),
        _trials(rows), _failed(rows, folder), _pictures(pictures),
    ]  # fmt: skip
    path = folder / "report.md"
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return path


def caption(rows: Sequence[Row]) -> list[str]:
    """Hardware, code and environment of each record, a line each, and a warning where a device was simulated."""
    lines = []
    for record in dict.fromkeys(row.get("record", "") for row in rows):
        own = [row for row in rows if row.get("record", "") == record]
        first = own[0]
        commits = dict.fromkeys(_commit(row) for row in own)
        repeats = max(row["cell"]["repeat"] for row in own)
        hardware = f"{record}: " * bool(record) + hardware_of(first["machine"])
        code = f"ga3c {first['versions']['ga3c']}, torch {first['versions']['torch']}, {' and '.join(commits)}"
        what = f"{first['comparison']['env']}, {repeats} repeat{'s' if repeats != 1 else ''}"
        lines.append(f"{hardware}; {what}; {code}")
    return [*lines, SIMULATED] if any(map(is_simulated, rows)) else lines


def _commit(row: Row) -> str:
    if row["commit"] is None:
        return "no checkout"
    return f"commit {row['commit'][:10]}{' with changes' if row['dirty'] else ''}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def _head(rows: Sequence[Row]) -> str:
    lines = [
        "# Comparison",
        "",
        *(f"- {line}" for line in caption(rows)),
        "- Each run is a fresh process. The modes alternate within a repeat, in an order drawn for each; rates are"
        " medians over the windows after the warm-up.",
        "- PPS counts predictions that chose an action for a live step; training samples/s counts live steps that"
        " updates were made of.",
    ]
    passed = dict.fromkeys(" ".join(row["train_arguments"]) for row in rows if row["train_arguments"])
    lines += [f"- Options of `ga3c train` for all runs: `{words}`" for words in passed]
    protocols = dict.fromkeys(row["run"]["protocol"] for row in rows if row.get("run"))
    return "\n".join(lines + [f"- Protocol: {words}" for words in protocols])


def _throughput(rows: Sequence[Row]) -> str:
    found = measured(rows)
    lines = []
    for network, mflop in networks(found).items():
        for name in labels(found):
            own = [row for row in found if label(row) == name and row["cell"]["network"] == network]
            if own:
                lines.append(
                    [network, f"{mflop:.4g}", name, *(_spread(own, rate_name) for rate_name in RATES), str(len(own))]
                )
    head = ["network", "MFLOP a state", "mode (device)", *RATES.values(), "runs"]
    return f"## Throughput\n\nMedian of the runs (least to most).\n\n{table(head, lines)}" if lines else ""


def _spread(rows: Sequence[Row], name: str) -> str:
    figures = [figure for row in rows if (figure := rate(row, name)) is not None]
    if not figures:
        return "not warm"
    extremes = f" ({number(min(figures))} to {number(max(figures))})" if len(figures) > 1 else ""
    return number(statistics.median(figures)) + extremes


def _speed_up_table(rows: Sequence[Row]) -> str:
    lines = []
    for name, words in RATES.items():
        for s in speed_ups(rows, name):
            ratios = ", ".join(f"{ratio:.2f}" for ratio in s.ratios)
            bounds = f"{s.interval.low:.2f} to {s.interval.high:.2f}"
            lines.append([s.network, s.pair, words, f"{s.interval.middle:.2f}", bounds, ratios])
    if not lines:
        return ""
    kind = (
        "the 95 % bootstrap interval of the median (the range, where there are fewer than"
        f" {FEWEST_FOR_INTERVAL} repeats)"
    )
    head = ["network", "pair", "of", "speed-up", "interval", "ratios"]
    return f"## Speed-up\n\nMedian of the ratios within repeats, with {kind}.\n\n{table(head, lines)}"


def speed_up_lines(rows: Sequence[Row]) -> list[str]:
    """For the terminal: what came out, a line a pair and network; and what the modes differed in."""
    found = [
        f"{s.network}: {s.pair} {s.interval.middle:.2f} times the {RATES[name]}"
        f" ({s.interval.kind} {s.interval.low:.2f} to {s.interval.high:.2f})"
        for name in RATES
        for s in speed_ups(rows, name)
    ]
    differ = [f"{line[0]}: {', '.join(f'{n} {v}' for n, v in zip(head[1:], line[1:], strict=True))}"
              for head, lines in [differences(rows)] for line in lines]  # fmt: skip
    return [*found, *(["what differs:", *(f"  {line}" for line in differ)] if differ else [])]


def _scores(rows: Sequence[Row]) -> str:
    found = [row for row in measured(rows) if "reached" in row]
    lines = []
    for row in found:
        reached = row["reached"]
        figures = [f"{reached['time_s'] / 60:.1f}", f"{reached['frames']:,}"] if reached else ["not reached", "-"]
        lines.append([row["cell"]["network"], label(row), str(row["cell"]["repeat"]), *figures])
    score = f"## Until the mean of the last 100 games is {found[0]['comparison']['until_score']:g}" if found else ""
    return (
        f"{score}\n\n{table(['network', 'mode (device)', 'repeat', 'minutes', 'frames'], sorted(lines))}"
        if found
        else ""
    )


def _time(rows: Sequence[Row]) -> str:
    """Shares of each role's time, and the means of what queues."""
    found = measured(rows)
    doing = ("environment", "inference", "training", "copying", "waiting")
    lines = []
    for network in networks(found):
        for name in labels(found):
            own = [row for row in found if label(row) == name and row["cell"]["network"] == network]
            for role, shares in role_shares(own).items():
                lines.append([network, name, role, *(f"{shares[d]:.0%}" if d in shares else "-" for d in doing)])
    return f"## Where the time goes\n\n{table(['network', 'mode (device)', 'role', *doing], lines)}" if lines else ""


def differences(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The head and the lines of a table of the settings that runs of one kind differed in."""
    found = measured(rows)
    configs = [row["run"]["config"] for row in found]
    names = [
        name
        for name in (configs[0] if configs else ())
        if name not in _NOT_SETTINGS and len({str(config.get(name)) for config in configs}) > 1
    ]
    values: dict[str, dict[str, list[str]]] = {}  # by mode, then by network
    for row in found:
        config = row["run"]["config"]
        counts = [str(config["actors"] * config["envs_per_actor"]), row["run"]["precision"] or "-"]
        values.setdefault(label(row), {})[row["cell"]["network"]] = counts + [
            _value(config.get(name)) for name in names
        ]
    head = ["mode (device)", "environments", "precision", *(name.replace("_", " ") for name in names)]
    return head, [line for mode in labels(found) for line in _lines_of(mode, values[mode])]


def _lines_of(mode: str, by_network: dict[str, list[str]]) -> list[list[str]]:
    """One line where all networks were run alike, else one each."""
    values = list(by_network.values())
    if all(other == values[0] for other in values):
        return [[mode, *values[0]]]
    return [[f"{mode}, {network}", *cells] for network, cells in by_network.items()]


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _differences(rows: Sequence[Row]) -> str:
    head, lines = differences(rows)
    text = "Preprocessing, network, t_max, losses and every option that is not listed are the same."
    return f"## What differs\n\n{text}\n\n{table(head, lines)}" if lines else ""


def _trials(rows: Sequence[Row]) -> str:
    lines = []
    for row in (row for row in rows if row["cell"]["kind"] == "trial"):
        counts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row["cell"]["settings"].items())
        figure = rate(row, "training_samples_per_s") if row["error"] is None else None
        result = number(figure) if figure is not None else "failed"
        lines.append([row["cell"]["network"], label(row), counts, result])
    text = "Each mode is measured with the counts that trained on most samples a second here."
    head = ["network", "mode (device)", "counts", "training samples/s"]
    return f"## Trials\n\n{text}\n\n{table(head, lines)}" if lines else ""


def _failed(rows: Sequence[Row], folder: Path) -> str:
    lines = [
        [
            row["cell"]["network"],
            label(row),
            str(row["cell"]["repeat"]),
            " ".join(row["error"].splitlines()[-1].split()),
        ]
        for row in rows
        if row["error"] is not None and row["cell"]["kind"] != "trial"
    ]
    if not lines:
        return ""
    again = ""
    if "record" not in rows[0]:  # else the pictures lie elsewhere than the records
        again = f"\n\nThis runs them again, and nothing else:\n\n```sh\n{command_again(rows, folder)}\n```"
    return f"## Failed\n\n{table(['network', 'mode (device)', 'repeat', 'error'], lines)}{again}"


def _pictures(pictures: Sequence[Path]) -> str:
    shown = [path for path in pictures if path.suffix == ".png"]
    return "\n\n".join(["## Pictures", *(f"![{path.stem}]({path.name})" for path in shown)]) if shown else ""
