"""Ends many short runs of each mode beside busy processes: each must end in order, with its exit code or a sentence.

A run of few steps is ended as users end theirs: by its budget, by Ctrl-C or SIGTERM at a random instant, by a second
Ctrl-C soon after the first, or inside a program that calls ``ga3c.train`` and then exits. On a machine with far more to
do than it has cores a thread is late at the end of nearly every other one. A call goes on where the record of this
commit ends.
"""

import collections
import concurrent.futures
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from processes import alive, handles_signals
from record import RESULTS, ROOT, append, facts, prepare, run_benchmark, spread

from ga3c.errors import UsageError

MODES = ("ga3c", "a2c", "a3c")
ENDS = ("budget", "SIGINT", "program", "SIGTERM", "SIGINT twice")
_STEPS = {"Pong-v5": 600, "CartPole-v1": 3000}
_EXPECTED = {"budget": 0, "SIGINT": 130, "program": 3, "SIGTERM": 143, "SIGINT twice": 130}
_SECOND_S = 1.5  # after the first Ctrl-C, at most
_GONE_S = 5.0  # for the other processes of a run, once it has ended: they compete with the busy ones too
_DISORDER = ("terminate called", "Fatal Python error", "Segmentation fault", "Traceback")
_PROGRAM = """import sys
import ga3c

if __name__ == "__main__":
    ga3c.train({env!r}, mode={mode!r}, total_steps={steps}, out="run")
    sys.exit(3)
"""
# It ends with whoever started it, however that went.
_BUSY = """import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Ends short runs beside busy processes, and appends how each ended."""

    runs: int = 50
    """Of each mode."""
    busy: int = 24
    """Processes that take what they get of the cores."""
    at_once: int = 4
    """Runs at the same time."""
    within_s: float = 60.0
    """Seconds from a run's start in which signals are drawn; a run that ends before is ended by its budget."""
    deadline_s: float = 400.0
    """Seconds after which a run is taken to hang, and killed."""
    seed: int = 1
    """Of the instants."""
    record: Path = RESULTS / "endings.jsonl"
    """JSONL file that a row is appended to for each run; those that are there for this commit are not run again."""


class Plan(NamedTuple):
    """What one run is, and how it is ended."""

    mode: str
    number: int
    env: str
    end: str
    after_s: float  # of a signal
    again_s: float  # of a second one, after the first


def plans(options: Options) -> list[Plan]:
    """Every run, the modes by turns; each way to end and each game with each mode."""
    found = []
    for number in range(options.runs):
        for place, mode in enumerate(MODES):
            draw = random.Random(f"{options.seed} {mode} {number}")
            end = ENDS[(number + place) % len(ENDS)]
            # Pong takes minutes to make its environments there: each mode plays it once with each way to end.
            turn, of_turn = divmod(number, len(ENDS))
            plays_pong = turn % 2 == 0 and of_turn == (turn // 2 + place) % len(ENDS)
            env = "Pong-v5" if plays_pong else "CartPole-v1"
            after_s, again_s = draw.uniform(0.0, options.within_s), draw.uniform(0.0, _SECOND_S)
            found.append(Plan(mode, number, env, end, round(after_s, 2), round(again_s, 2)))
    return found


def main() -> None:
    """Entry point; the exit code is 1 if a run of this record did not end in order."""
    run_benchmark("endings", lambda: _main(tyro.cli(Options, prog="endings.py")))


def _main(options: Options) -> int:
    # A job in a shell's background ignores SIGINT, and so would every run that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    numbers = {name: getattr(options, name) for name in ("runs", "at_once", "within_s", "deadline_s")}
    if options.busy < 0 or not all(0 < number < float("inf") for number in numbers.values()):
        raise UsageError(f"got {numbers | {'busy': options.busy}}; expected --busy from 0, and others above 0")
    prepare(options.record)
    same = {**facts(), "busy": options.busy, "at_once": options.at_once, "seed": options.seed}
    rows = _recorded(options, same)
    to_come = [plan for plan in plans(options) if (plan.mode, plan.number) not in rows]
    print(f"{len(rows)} runs are in {options.record}; {len(to_come)} to come", flush=True)
    began = time.monotonic()
    with _busy(options.busy), concurrent.futures.ThreadPoolExecutor(options.at_once) as pool, _Runs() as runs:
        waiting = [pool.submit(runs.end, plan, options.deadline_s) for plan in to_come]
        try:
            for ended in concurrent.futures.as_completed(waiting):
                row = {"measured": "endings", **same, **ended.result()}
                append(options.record, row)
                rows[row["mode"], row["number"]] = row
                passed_s = time.monotonic() - began
                print(f"{len(rows)} of {len(MODES) * options.runs} after {passed_s:.0f} s: {_line(row)}", flush=True)
        except BaseException:  # the user's Ctrl-C: what runs is killed, what waits is not begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return _summary(list(rows.values()))


def _recorded(options: Options, same: Row) -> dict[tuple[str, int], Row]:
    """The rows that this call would make again, by mode and number."""
    names = ("commit", "dirty", "busy", "seed", "machine")
    wanted = {(plan.mode, plan.number) for plan in plans(options)}
    rows = [json.loads(line) for line in options.record.read_text(encoding="utf-8").splitlines()]
    found = {(row["mode"], row["number"]): row for row in rows if all(row[name] == same[name] for name in names)}
    return {place: row for place, row in found.items() if place in wanted}


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """That many processes compete for the cores, while it lasts or until this process is gone."""
    started = [subprocess.Popen([sys.executable, "-I", "-S", "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


class _Runs:
    """Begins runs, in several threads, and ends those that are left when it is left itself."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()

    def __enter__(self) -> "_Runs":
        return self

    def __exit__(self, *_: object) -> None:
        for process in list(self._running):
            process.kill()

    def end(self, plan: Plan, deadline_s: float) -> Row:
        """One run: what was done to it, and how it ended."""
        with tempfile.TemporaryDirectory(prefix="ga3c-endings-", ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary).resolve()
            began = time.monotonic()
            with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
                process = subprocess.Popen(
                    _command(plan, folder), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                    env=os.environ | {"PYTHONPATH": str(ROOT)}, process_group=0,
                )  # fmt: skip
                self._running.add(process)
                asked, hung = _end(process, plan, began + deadline_s)
                self._running.discard(process)
            ended = time.monotonic()
            left = _left_behind(folder)
            said, cried = ((folder / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
            row = {
                **plan._asdict(),
                "command": " ".join(["ga3c", *_arguments(plan)] if plan.end != "program" else ["python", "program.py"]),
                "code": process.returncode,
                "seconds": round(ended - began, 2),
                "stop_s": None if asked is None else round(ended - asked, 2),
                "late": [line for line in (said + cried).splitlines() if "was still busy" in line],
                "last_line": next(iter(cried.split("\n")[-2:-1]), "").replace(str(folder), ""),
                "disorder": [words for words in _DISORDER if words in said + cried],
                "hung": hung,
                "left_behind": left,
            }
            return row | {"in_order": _is_in_order(row, said)}


def _arguments(plan: Plan) -> list[str]:
    return ["train", plan.env, "--mode", plan.mode, "--total-steps", str(_STEPS[plan.env]), "--out", "run"]


def _command(plan: Plan, folder: Path) -> list[str]:
    if plan.end != "program":
        return [sys.executable, "-m", "ga3c", *_arguments(plan)]
    program = folder / "program.py"
    program.write_text(_PROGRAM.format(env=plan.env, mode=plan.mode, steps=_STEPS[plan.env]), encoding="utf-8")
    return [sys.executable, str(program)]


def _end(process: subprocess.Popen[bytes], plan: Plan, deadline: float) -> tuple[float | None, bool]:
    """Sends the signals and waits; returns when the first was sent, if one was, and whether the run hung."""
    asked = None
    if plan.end.startswith("SIG"):
        while process.poll() is None and not handles_signals(process.pid):
            time.sleep(0.05)  # until then it is Python's to answer
        for after_s in [plan.after_s, plan.again_s][: 1 + plan.end.endswith("twice")]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after_s)
            if process.poll() is None:
                process.send_signal(signal.Signals[plan.end.split()[0]])
                asked = asked or time.monotonic()
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
        return asked, False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return asked, True


def _left_behind(folder: Path) -> list[str]:
    """What else still runs in the folder of a run that has ended, a while later; it is killed."""
    deadline = time.monotonic() + _GONE_S
    while (pids := _in(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    names = []
    for pid in pids:
        with contextlib.suppress(OSError):
            names.append(Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ").strip())
            os.kill(pid, signal.SIGKILL)
    return names


def _in(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == folder and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def _is_in_order(row: Row, said: str) -> bool:
    """Whether it ended with the code that it should have, or with a failure in a sentence; and left nothing."""
    had_just_ended = row["code"] == 0 and "done after" in said
    in_a_sentence = row["code"] in (1, 2) and row["last_line"].startswith("ga3c: ")
    ended = row["code"] == _EXPECTED[row["end"]] or had_just_ended or in_a_sentence
    return ended and not (row["disorder"] or row["hung"] or row["left_behind"])


def _line(row: Row) -> str:
    found = ", ".join(f"{name} {row[name]}" for name in ("late", "disorder", "hung", "left_behind") if row[name])
    verdict = "" if row["in_order"] else f"; NOT IN ORDER; its last line: {row['last_line']}"
    return (
        f"{row['mode']} {row['env']}, {row['end']}: code {row['code']}, {row['seconds']:.0f} s"
        f"{'; ' * bool(found)}{found}{verdict}"
    )


def _summary(rows: list[Row]) -> int:
    """Prints what came out; returns the exit code."""
    for mode in MODES:
        own = [row for row in rows if row["mode"] == mode]
        codes = ", ".join(f"{n} with code {code}" for code, n in collections.Counter(r["code"] for r in own).items())
        late, wrong = sum(bool(row["late"]) for row in own), [row for row in own if not row["in_order"]]
        print(f"{mode}: {len(own)} runs: {codes}; a thread or more late in {late}; {len(wrong)} not in order")
        print(f"  seconds: {spread([row['seconds'] for row in own])}")
        for row in wrong:
            print(f"  {_line(row)}")
    return 0 if all(row["in_order"] for row in rows) else 1


if __name__ == "__main__":
    main()
