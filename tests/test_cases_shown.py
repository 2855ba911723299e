"""What is shown on terminals and elsewhere while a run or an evaluation goes on: it tells enough, and never raises."""

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import numpy as np
import pytest

from ga3c import eval_progress
from ga3c.display import make_console, make_display, say, say_error
from ga3c.eval_progress import EvalProgress, Standing
from ga3c.metrics import Meters
from tests.running import ROOT, SMALL, STOP_S
from tests.running import ga3c as run_ga3c
from tests.test_cases_environments import agent


def in_terminal(arguments, cwd, until, number=None, **variables):
    """Runs the command line in a terminal; sends a signal once ``until`` is shown. Returns code and what was shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | variables
    words = [sys.executable, "-m", "ga3c", *arguments]
    with subprocess.Popen(words, cwd=cwd, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while until not in shown:
            assert select.select([ours], [], [], 3 * STOP_S)[0], shown[-500:]
            shown += os.read(ours, 65536)
        if number is not None:
            process.send_signal(number)
        with contextlib.suppress(OSError):  # its end
            while text := os.read(ours, 65536):
                shown += text
        code = process.wait(STOP_S)
    os.close(ours)
    return code, shown


def test_eval_shows_progress_on_a_terminal_until_ctrl_c(tmp_path):
    agent(tmp_path / "run", "Endless")
    code, shown = in_terminal(["eval", "run", "--episodes", "3"], tmp_path, b"0:00:01", signal.SIGINT)
    assert code == 130
    assert b"0/3 games" in re.sub(rb"\x1b\[[0-9;]*m", b"", shown)
    assert b"stopped; the scores of 0 of 1 runs are kept" in shown
    assert b"Traceback" not in shown
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l"), "the cursor is there again"


def test_ctrl_c_in_eval_without_a_terminal_leaves_no_traceback(tmp_path):
    agent(tmp_path / "run", "Endless")
    process = run_ga3c("eval", "run", "--device", "cpu", cwd=tmp_path, wait=False)
    time.sleep(6)  # it plays, or still loads torch
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=STOP_S)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err


@pytest.fixture
def hurried(monkeypatch):
    """Looks at every call, says a line at each, and finds a short while long."""
    monkeypatch.setattr(eval_progress, "_LOOK_S", 0.0)
    monkeypatch.setattr(eval_progress, "_LINE_S", 0.0)


@pytest.mark.usefixtures("hurried")
def test_eval_without_a_terminal_says_a_line_now_and_then(capsys):
    with EvalProgress(is_limited=False) as progress:
        progress.begin("run", "Endless-v0", 4)
        progress.show(Standing(1, 4000, np.array([5, 0, 1300])))
    assert capsys.readouterr() == ("", "ga3c eval: run: 1 of 4 games, 4,000 steps, 0 s\n")


@pytest.mark.usefixtures("hurried")
def test_eval_names_the_environments_that_have_not_ended(capsys):
    with EvalProgress(is_limited=False) as progress:
        progress.begin("run", "Endless-v0", 4)
        for _ in range(3):
            progress.show(Standing(1, 400_000, np.array([100_000, 5, 120_000, 0])))
    said = capsys.readouterr().err
    assert said.count("--max-episode-steps N cuts games after N steps") == 1
    assert "environments 0, 2 of Endless-v0: the game has not ended after 120,000 steps" in said


@pytest.mark.usefixtures("hurried")
def test_eval_says_so_too_when_no_game_ends_for_a_minute(capsys, monkeypatch):
    with EvalProgress(is_limited=False) as progress:
        progress.begin("run", "Slow-v0", 4)
        progress.show(Standing(0, 30, np.array([30, 0])))
        assert "has not ended" not in capsys.readouterr().err
        monkeypatch.setattr(eval_progress, "_LONG_S", 0.0)
        progress.show(Standing(0, 60, np.array([60, 0])))
    assert "environment 0 of Slow-v0: the game has not ended after 60 steps" in capsys.readouterr().err


@pytest.mark.usefixtures("hurried")
def test_eval_with_a_limit_blames_no_environment(capsys):
    with EvalProgress(is_limited=True) as progress:
        progress.begin("run", "Endless-v0", 4)
        progress.show(Standing(0, 400_000, np.array([400_000])))
    assert "has not ended" not in capsys.readouterr().err


def broken(kind):
    """A standard stream as programs find it."""
    if kind == "ascii":
        return io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    if kind == "full":
        return open("/dev/full", "w", encoding="utf-8")
    if kind == "closed":
        stream = io.StringIO()
        stream.close()
        return stream
    return None


@pytest.mark.parametrize("kind", ["ascii", "full", "closed", "missing"])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_what_is_shown_never_raises_whatever_the_stream_is(monkeypatch, kind, is_terminal):
    stream = broken(kind)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("FORCE_COLOR", "1" if is_terminal else "")
    assert make_console().is_terminal == is_terminal
    with make_display("ga3c  Zürich-v0", on_cpu=True) as display:
        display.say("r\udcff ▀ é")
        display.show(Meters(1).rates(), 0.5, 10.0)
    say("r\udcff")
    say_error("▀")
    if kind == "ascii":
        stream.flush()
        shown = stream.buffer.getvalue()
        assert b"r\\udcff \\u2580 \\xe9" in shown
        assert all(byte < 128 for byte in shown)
    if kind == "full":
        with contextlib.suppress(OSError):
            stream.close()


def test_a_run_in_an_ascii_terminal_shows_its_panel(tmp_path):
    arguments = ["train", "CartPole-v1", *SMALL, "--total-steps", "400", "--out", "é"]
    code, shown = in_terminal(arguments, tmp_path, b"", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert code == 0
    assert b"run folder \\xe9" in shown
    assert b"Traceback" not in shown
    assert all(byte < 128 for byte in shown)


def test_a_run_whose_output_is_closed_trains(tmp_path):
    code = "import sys, ga3c; sys.stdout.close(); ga3c.train('CartPole-v1', total_steps=400, out='run')"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert list((tmp_path / "run").glob("checkpoint-*"))
