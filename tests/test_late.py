"""The end of a process beside threads that are late: in order, with its exit code, whatever they are at."""

import json
import os
import subprocess
import sys

import pytest

from tests.running import ROOT, metrics

# One rollout takes seconds, so that the thread is inside EnvPool or torch when the run and the interpreter end.
LONG = {"mode": "a2c", "envs_per_actor": 16, "t_max": 60, "normalise_states": False, "minutes": 0.02, "out": "run"}
AT_ONCE = "import ga3c.system; ga3c.system.STOP_TIMEOUT_S = 0.0\n"  # instead of 2.5 s: no machine is that fast


def command(before=""):
    return f"""{AT_ONCE}
import atexit, runpy, sys
{before}
atexit.register(print, "an exit handler ran")
sys.argv[1:] = ["train", "Pong-v5", "--mode", "a2c", "--envs-per-actor", "16", "--t-max", "60",
                "--no-normalise-states", "--minutes", "0.02", "--out", "run"]
runpy.run_module("ga3c", run_name="__main__")
"""


def program(before="", after=""):
    return f"""{AT_ONCE}
import sys, ga3c, ga3c.late
{before}
ga3c.train("Pong-v5", quiet=True, **{LONG})
{after}
"""


def python(text, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", text], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert "terminate called" not in ended.stderr
    return ended


@pytest.mark.usefixtures("no_process_and_no_shared_memory_is_left")
def test_a_command_ends_with_its_code_though_a_thread_is_late(tmp_path):
    ended = python(command(), tmp_path)
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout + ended.stderr
    assert "learner 0 was still busy 0 s after it was asked to stop" in said
    assert "done after" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "an exit handler ran"
    (totals,) = metrics(tmp_path / "run", "totals")
    assert totals["env_steps"] == totals["samples_trained"] + totals["samples_in_flight"]


def test_a_command_that_raises_beside_a_late_thread_shows_its_traceback(tmp_path):
    before = "import ga3c.run; ga3c.run._Session._say_end = lambda session: 1 / 0"
    ended = python(command(before), tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("after", "code", "words"),
    [("sys.exit(3)", 3, ""), ("", 0, ""), ("raise ValueError('mine')", 1, "ValueError: mine")],
)
def test_a_program_ends_as_it_wants_to_though_a_thread_is_late(tmp_path, after, code, words):
    ended = python(program(after=after), tmp_path)
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr


def test_a_program_waits_for_a_late_thread_within_a_bound(tmp_path):
    before = (
        "import atexit; atexit.register(print, 'an exit handler ran'); ga3c.late._QUIET_S = ga3c.late._WAIT_S = 0.1"
    )
    ended = python(program(before), tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-2:] == [
        "ga3c: learner 0 is still busy; the program's end waits for 0.1 s",
        "ga3c: learner 0 is still busy; the process ends all the same, with exit code 1",
    ]
    assert "an exit handler ran" in ended.stdout


def test_a_program_that_ends_while_its_own_thread_trains_ends_in_order(tmp_path):
    text = f"""
import threading, time, ga3c
options = {LONG | {"minutes": 5.0}}
threading.Thread(target=ga3c.train, args=("Pong-v5",), kwargs=options, daemon=True).start()
while not any(thread.name == "learner 0" for thread in threading.enumerate()):
    time.sleep(0.1)
time.sleep(1)
"""
    assert python(text, tmp_path).returncode == 0


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_short_runs_of_each_mode_end_in_order_beside_busy_processes(tmp_path):
    record = tmp_path / "record.jsonl"
    script = [sys.executable, ROOT / "benchmarks" / "endings.py", "--runs", "3", "--record", record]
    ended = subprocess.run(script, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False, timeout=2900)
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    assert [row for row in rows if not row["in_order"]] == []
    assert len(rows) == 9
    assert ended.returncode == 0
