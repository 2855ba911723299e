"""User code that starts processes, begins runs, exits, or changes the process that runs it: what a run makes of that.

Modules are written into the folder of a test, so that each is imported anew, as a user's is.
"""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.running import ROOT, SMALL, STOP_S, finish, ga3c, metrics, roles, wait_for, wait_for_training

pytestmark = pytest.mark.usefixtures("no_process_and_no_shared_memory_is_left")

MODES = {"ga3c": SMALL, "a3c": ["--actors", "2"], "a2c": ["--envs-per-actor", "4"]}
ARGUMENTS = "actors=2, envs_per_actor=4, t_max=4, min_training_batch=16, total_steps=2000, quiet=True"
REGISTERS = """
import gymnasium
from tests.case_envs import Sign

gymnasium.register("Mine-v0", entry_point=Sign)
"""


def write(folder, name, text):
    (folder / f"{name}.py").write_text(textwrap.dedent(text))


def run_script(folder, name, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return finish(
        subprocess.Popen(
            [sys.executable, f"{name}.py", *arguments],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
    )  # fmt: skip


def train(folder, env, mode="ga3c", *arguments, **options):
    counts = MODES[mode]
    return ga3c(
        "train", env, "--mode", mode, "--total-steps", 2000, "--out", "run", *counts, *arguments, cwd=folder, **options
    )


def started(folder, command="sleep"):
    """Process ids of what a test's environments have started: processes of that name in its folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if (entry / "comm").read_text().strip() == command and (entry / "cwd").resolve() == folder.resolve():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


# A run inside a worker


def test_a_script_without_a_main_guard_trains_once(tmp_path):
    write(tmp_path, "unguarded", f"""
        import ga3c
        {textwrap.indent(REGISTERS, " " * 8).strip()}
        open("imported", "a").write("x")
        run = ga3c.train("unguarded:Mine-v0", {ARGUMENTS})
        print("my own score", run.score)
    """)  # fmt: skip
    ended = run_script(tmp_path, "unguarded")
    assert ended.returncode == 0, ended.err
    assert ended.out.count("my own score") == 1
    assert (tmp_path / "imported").read_text() == "xxx", "the script itself, and two actors"
    command = ga3c("train", "unguarded:Mine-v0", "--total-steps", 2000, *SMALL, cwd=tmp_path)
    assert command.returncode == 0, command.err
    assert "my own score" not in command.out, "the script's own run was begun"


def test_environment_and_network_of_a_script_without_a_guard_can_lie_in_it(tmp_path):
    write(tmp_path, "whole", f"""
        import ga3c
        import gymnasium
        from tests.case_envs import Sign
        from torch import nn


        class Mine(Sign):
            pass


        class Narrow(nn.Module):
            def __init__(self, observation_shape, num_actions):
                super().__init__()
                self.policy, self.value = nn.Linear(2, num_actions), nn.Linear(2, 1)

            def forward(self, observations):
                return self.policy(observations), self.value(observations).squeeze(1)


        gymnasium.register("Mine-v0", entry_point="whole:Mine")
        run = ga3c.train("whole:Mine-v0", network=Narrow, out="run", {ARGUMENTS})
        print("my own score", run.score)
    """)  # fmt: skip
    ended = run_script(tmp_path, "whole")
    assert ended.returncode == 0, ended.err
    scored = ga3c("eval", "run", "--episodes", 2, cwd=tmp_path)
    assert scored.returncode == 0, scored.err
    assert "my own score" not in scored.out, "the script's own run was begun"


def test_a_module_that_begins_a_run_before_it_registers_is_named(tmp_path):
    write(tmp_path, "early", f'import ga3c\nga3c.train("CartPole-v1", {ARGUMENTS})\n{REGISTERS}')
    ended = train(tmp_path, "early:Mine-v0")
    assert ended.returncode == 2
    assert "module 'early' begins a run while it is imported" in ended.err
    assert len(ended.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "how", ["ga3c.train('CartPole-v1')", "subprocess.run([sys.executable, '-m', 'ga3c', 'train'], check=True)"]
)
def test_an_environment_cannot_begin_a_run_in_a_worker(tmp_path, how):
    write(tmp_path, "nested", f"""
        import subprocess, sys
        import ga3c
        import gymnasium
        from tests.case_envs import Sign


        class Nested(Sign):
            def step(self, action):
                {how}


        gymnasium.register("Nested-v0", entry_point=Nested)
    """)  # fmt: skip
    ended = train(tmp_path, "nested:Nested-v0")
    assert ended.returncode == 1
    assert "a run was begun inside a worker of another run" in ended.err


# What a module does when it is imported


@pytest.mark.parametrize(
    ("mode", "does"),
    [
        *((mode, "os.fork()") for mode in MODES),
        ("ga3c", "sys.stdout.close()"),
        ("ga3c", "os.close(1), os.close(0)"),
        ("ga3c", "multiprocessing.get_context('fork').Process(target=print).start()"),
    ],
)
def test_a_run_survives_what_a_module_does_when_it_is_imported(tmp_path, does, mode):
    write(tmp_path, "odd", f"import multiprocessing, os, sys\n{does}\n{REGISTERS}")
    ended = train(tmp_path, "odd:Mine-v0", mode)
    assert ended.returncode == 0, ended.err
    assert metrics(tmp_path / "run", "totals")[-1]["env_steps"] >= 2000
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("sys.exit()", "importing 'odd' gave SystemExit"),
        ("sys.exit('no licence')", "importing 'odd' gave SystemExit: no licence"),
        ("input()", "importing 'odd' gave EOFError"),
        ("argparse.ArgumentParser().parse_args()", "importing 'odd' gave SystemExit: 2"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(tmp_path, does, words):
    write(tmp_path, "odd", f"import argparse, sys\n{does}\n{REGISTERS}")
    ended = train(tmp_path, "odd:Mine-v0", stdin=subprocess.DEVNULL)
    assert ended.returncode == 2
    assert words in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("mode", ["ga3c", "a3c"])
def test_a_module_that_exits_in_a_worker_alone_is_named_in_a_sentence(tmp_path, mode):
    write(tmp_path, "odd", f"import os, sys\nif 'GA3C_WORKER' in os.environ:\n    sys.exit('no display')\n{REGISTERS}")
    ended = train(tmp_path, "odd:Mine-v0", mode)
    assert ended.returncode == 2
    assert "importing 'odd' gave SystemExit: no display" in ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err


def test_a_script_that_reads_its_arguments_is_imported_with_them(tmp_path):
    write(tmp_path, "argued", f"""
        import argparse
        import ga3c
        {textwrap.indent(REGISTERS, " " * 8).strip()}
        parser = argparse.ArgumentParser()
        parser.add_argument("--seed", type=int, required=True)
        seed = parser.parse_args().seed
        print("my own score", ga3c.train("argued:Mine-v0", seed=seed, {ARGUMENTS}).score)
    """)  # fmt: skip
    ended = run_script(tmp_path, "argued", "--seed", "3")
    assert ended.returncode == 0, ended.err
    assert ended.out.count("my own score") == 1


@pytest.mark.parametrize("mode", MODES)
def test_an_environment_that_exits_is_replaced_like_any_that_fails(tmp_path, mode):
    ended = train(tmp_path, "tests.case_envs:Exits-v0", mode, "--on-env-error", "replace")
    assert ended.returncode == 0, ended.err
    assert "raised SystemExit in step" in ended.out
    stopped = ga3c("train", "tests.case_envs:Exits-v0", "--mode", mode, *MODES[mode], cwd=tmp_path)
    assert stopped.returncode == 1
    assert "raised SystemExit in step" in stopped.err


# What environments start


DAEMON = """
import os, subprocess
import gymnasium
from tests.case_envs import Sign


class Daemon(Sign):
    def __init__(self):
        subprocess.run("sleep 3272 & setsid sleep 3273 & (setsid sh -c 'sleep 3274 & sleep 3275' &)", shell=True)
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "3276"])


gymnasium.register("Daemon-v0", entry_point=Daemon)
"""


@pytest.mark.parametrize("mode", MODES)
def test_environments_close_what_they_own_when_a_run_ends(tmp_path, mode):
    ended = train(tmp_path, "tests.case_envs:Process-v0", mode)  # returns once nobody holds the pipes any more
    assert ended.returncode == 0, ended.err
    assert not started(tmp_path)


@pytest.mark.parametrize("mode", ["ga3c", "a3c"])
def test_nothing_stays_that_a_killed_worker_had_started(tmp_path, mode):
    (tmp_path / "daemon.py").write_text(DAEMON)
    process = ga3c("train", "daemon:Daemon-v0", "--mode", mode, "--out", "run", *MODES[mode], cwd=tmp_path, wait=False)
    wait_for_training(tmp_path / "run", process)
    [victim, *_] = [pid for pid, title in roles(tmp_path).items() if title.startswith(("ga3c: actor", "ga3c: worker"))]
    mine = []

    def has_started_some():
        mark = f"GA3C_WORKER={victim}\0".encode()
        mine[:] = [pid for pid in started(tmp_path) if mark in Path(f"/proc/{pid}/environ").read_bytes()]
        return mine

    assert wait_for(has_started_some)
    os.kill(victim, signal.SIGKILL)
    assert wait_for(lambda: not set(mine) & set(started(tmp_path)), 20)
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout=STOP_S).returncode == 130, process.err
    assert not started(tmp_path)


@pytest.mark.parametrize("victim", ["ga3c: learner", "ga3c: forkserver"])
def test_nothing_stays_that_workers_had_started_when_a_run_is_killed(tmp_path, victim):
    process = ga3c("train", "tests.case_envs:Process-v0", "--out", "run", *SMALL, cwd=tmp_path, wait=False)
    wait_for_training(tmp_path / "run", process)
    [pid] = [pid for pid, title in roles(tmp_path).items() if title == victim]
    assert started(tmp_path)
    os.kill(pid, signal.SIGKILL)
    finish(process, timeout=STOP_S)
    assert wait_for(lambda: not started(tmp_path), 20)


LOGS = """
import os
import gymnasium
import numpy as np
from gymnasium.spaces import Box
from tests.case_envs import Sign


class Logs(Sign):
    observation_space = Box(0, 255, (84, 84, 3), np.uint8)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.log("made")

    def log(self, word):
        with open("log", "a") as file:
            file.write(f"{word} {os.getpid()} {id(self)}\\n")

    def observe(self):
        return np.full((84, 84, 3), 200 * self.bit, np.uint8)

    def render(self):
        return self.observe()

    def close(self):
        self.log("closed")


gymnasium.register("Logs-v0", entry_point=Logs)
"""


def assert_all_were_closed_once(folder):
    lines = (folder / "log").read_text().splitlines()
    made = sorted(line.removeprefix("made ") for line in lines if line.startswith("made "))
    closed = sorted(line.removeprefix("closed ") for line in lines if line.startswith("closed "))
    assert made
    assert made == closed
    (folder / "log").unlink()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_every_environment_is_closed_once_by_every_command(tmp_path, mode):
    (tmp_path / "logs.py").write_text(LOGS)
    ended = ga3c(
        "train", "logs:Logs-v0", "--mode", mode, "--total-steps", 300, "--out", "run", *MODES[mode], cwd=tmp_path
    )
    assert ended.returncode == 0, ended.err
    assert_all_were_closed_once(tmp_path)
    if mode == "ga3c":
        for command in (["eval", "run", "--episodes", 3], ["play", "run", "--out", "film.gif"], ["export", "run"]):
            ended = ga3c(*command, cwd=tmp_path)
            assert ended.returncode == 0, ended.err
            assert_all_were_closed_once(tmp_path)


def test_environments_are_closed_where_a_later_one_cannot_be_made(tmp_path):
    (tmp_path / "logs.py").write_text(LOGS + "\n\nclass Third(Logs):\n    count = 0\n\n    def __init__(self):\n"
        "        Third.count += 1\n        if Third.count == 4:\n            raise RuntimeError('only two')\n"
        "        super().__init__()\n\n\ngymnasium.register('Third-v0', entry_point=Third)\n")  # fmt: skip
    ended = train(tmp_path, "logs:Third-v0", "a2c")
    assert ended.returncode == 1
    assert "cannot be made: RuntimeError: only two" in ended.err
    assert_all_were_closed_once(tmp_path)


# Process-wide state


NASTY = """
import locale, os, signal, socket, sys, threading, time
from pathlib import Path
import gymnasium
import numpy as np
import {torch}
from tests.case_envs import Sign


def change_everything():
    os.chdir("/")
    os.umask(0o777)
    socket.setdefaulttimeout(0.01)
    np.seterr(all="raise")
    locale.setlocale(locale.LC_ALL, "C")
    os.environ.pop("HOME", None)
    os.environ.pop("PATH", None)
    sys.path.extend([Path("/nowhere"), None, b"/nowhere", 7])
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_default_device("meta")


class Nasty(Sign):
    def __init__(self):
        change_everything()

    def reset(self, **kwargs):
        change_everything()
        return super().reset(**kwargs)

    def step(self, action):
        change_everything()
        return super().step(action)


change_everything()
gymnasium.register("Nasty-v0", entry_point=Nasty)
"""


@pytest.mark.parametrize(
    ("mode", "torch"), [("ga3c", "torch"), ("ga3c", "this"), ("a3c", "torch"), ("a2c", "torch")], ids=str
)
def test_a_run_does_not_depend_on_what_user_code_can_change(tmp_path, mode, torch):
    (tmp_path / "nasty.py").write_text(NASTY.format(torch=torch))
    process = ga3c(
        "train", "nasty:Nasty-v0", "--mode", mode, "--checkpoint-every", 1, *MODES[mode], cwd=tmp_path, wait=False
    )
    assert wait_for(lambda: process.poll() is not None or [*tmp_path.glob("runs/*/checkpoint-*.safetensors")])
    assert process.poll() is None, finish(process).err
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout=STOP_S).returncode == 130, process.err
    [folder] = (tmp_path / "runs").iterdir()
    assert f"ga3c train --resume runs/{folder.name}" in process.out
    modes = [path.stat().st_mode & 0o777 for path in [folder, *folder.iterdir()]]
    assert all(mode & 0o400 for mode in modes), "files that nobody may read"
    assert len(metrics(folder, "totals")) == 1


@pytest.mark.timeout(300)
def test_resuming_and_evaluating_do_not_depend_on_it_either(tmp_path):
    (tmp_path / "nasty.py").write_text(NASTY.format(torch="torch"))
    for arguments in (["train", "nasty:Nasty-v0", "--total-steps", 1000, "--out", "run", *SMALL],
                      ["train", "--resume", "run", "--total-steps", 2000], ["eval", "run", "--episodes", 2],
                      ["export", "run", "--format", "torch", "--out", "policy.pt2"]):  # fmt: skip
        ended = ga3c(*arguments, cwd=tmp_path)
        assert ended.returncode == 0, ended.err
    assert (tmp_path / "policy.pt2").stat().st_size
    assert (tmp_path / "run" / "evaluations.jsonl").exists()


def test_a_program_that_has_changed_its_process_can_train(tmp_path):
    write(tmp_path, "program", f"""
        import socket, sys
        from pathlib import Path
        import torch
        import ga3c

        socket.setdefaulttimeout(0.01)
        sys.path.append(Path("somewhere"))
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        run = ga3c.train("CartPole-v1", out="run", {ARGUMENTS})
        assert torch.get_default_dtype() == torch.float64 and not torch.is_grad_enabled()
        print("steps", run.env_steps)
    """)  # fmt: skip
    ended = run_script(tmp_path, "program")
    assert ended.returncode == 0, ended.err
    assert "steps" in ended.out
