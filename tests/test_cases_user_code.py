"""More of what user code does to a run: slow and failing ``close``, seeds, threads, forks, and runs begun at import."""

import signal
import subprocess
import sys

import pytest

from tests.running import SMALL, STOP_S, finish, ga3c, metrics, wait_for, wait_for_training
from tests.test_cases_processes import ARGUMENTS, MODES, REGISTERS, run_script, started, train, write

pytestmark = pytest.mark.usefixtures("no_process_and_no_shared_memory_is_left")


def environment(body):
    """A module that registers Mine-v0: a Sign with these methods."""
    return f"""
import os, random, subprocess, sys, time
import gymnasium
from tests.case_envs import Sign


class Mine(Sign):
    {body}


gymnasium.register("Mine-v0", entry_point=Mine)
"""


@pytest.mark.parametrize("mode", MODES)
def test_environments_that_close_slowly_are_waited_for(tmp_path, mode):
    (tmp_path / "slow.py").write_text(environment("""
    def __init__(self):
        open("log", "a").write("m")

    def close(self):
        time.sleep(1.5)
        open("log", "a").write("c")
"""))  # fmt: skip
    ended = train(tmp_path, "slow:Mine-v0", mode)
    assert ended.returncode == 0, ended.err
    log = (tmp_path / "log").read_text()
    assert log.count("m") == log.count("c") > 2
    assert "still busy" not in ended.out


def test_an_environment_whose_close_raises_is_named_and_no_more(tmp_path):
    (tmp_path / "raises.py").write_text("import warnings\nwarnings.simplefilter('error')\n" + environment("""
    def close(self):
        raise RuntimeError("no server")
"""))  # fmt: skip
    ended = train(tmp_path, "raises:Mine-v0")
    assert ended.returncode == 0, ended.err
    assert "raised RuntimeError in close: no server" in ended.err
    assert "Traceback" not in ended.err


def test_workers_draw_their_own_actions_though_a_module_seeds_torch(tmp_path):
    (tmp_path / "seeds.py").write_text("import torch\ntorch.manual_seed(0)\n" + environment("""
    def observe(self):
        import numpy as np
        return np.zeros(2, np.float32)

    def step(self, action):
        open(f"actions-{os.getpid()}", "a").write(str(action))
        return super().step(action)
"""))  # fmt: skip
    ended = train(tmp_path, "seeds:Mine-v0", "a3c")
    assert ended.returncode == 0, ended.err
    drawn = [path.read_text()[:60] for path in tmp_path.glob("actions-*")]
    assert len(drawn) == 2
    assert drawn[0] != drawn[1]


def test_a_thread_that_a_module_has_started_does_not_keep_the_command(tmp_path):
    write(tmp_path, "beats", "import threading, time\n"
        "threading.Thread(target=lambda: time.sleep(1000)).start()\n" + REGISTERS)  # fmt: skip
    ended = train(tmp_path, "beats:Mine-v0")
    assert ended.returncode == 0, ended.err


def test_a_module_cannot_begin_runs_in_processes_that_it_starts(tmp_path):
    command = [sys.executable, "-m", "ga3c", "train", "chain:Mine-v0", "--total-steps", "100"]
    write(tmp_path, "chain", "import subprocess\nopen('count', 'a').write('x')\n"
        f"said = subprocess.run({command}, capture_output=True, text=True).stderr\n"
        "open('said', 'a').write(said)\n" + REGISTERS)  # fmt: skip
    ended = train(tmp_path, "chain:Mine-v0")
    assert ended.returncode == 0, ended.err
    assert (tmp_path / "count").read_text() == "xxx", "the learner and two actors"
    said = (tmp_path / "said").read_text()
    assert "module 'chain' begins a run while it is imported" in said
    assert "Traceback" not in said


def test_a_worker_that_has_cleared_its_variables_cannot_begin_a_run(tmp_path):
    (tmp_path / "clears.py").write_text(environment("""
    def step(self, action):
        import ga3c
        os.environ.clear()
        ga3c.train("CartPole-v1")
"""))  # fmt: skip
    ended = train(tmp_path, "clears:Mine-v0")
    assert ended.returncode == 1
    assert "a run was begun inside a worker of another run" in ended.err


def test_a_refusal_that_a_module_catches_does_not_stop_its_import(tmp_path):
    attempt = f"run = ga3c.train('catches:Mine-v0', {ARGUMENTS})"
    write(
        tmp_path,
        "catches",
        f"import ga3c\n{REGISTERS}try:\n    {attempt}\nexcept Exception:\n    pass\nprint(run.score)",
    )
    ended = train(tmp_path, "catches:Mine-v0")
    assert ended.returncode == 0, ended.err


def test_a_callback_that_forks_leaves_no_second_learner(tmp_path):
    write(tmp_path, "forks", f"""
        import os
        import ga3c

        done = []

        def on_update(update):
            if not done:
                done.append(os.fork())

        run = ga3c.train("CartPole-v1", on_update=on_update, out="run", {ARGUMENTS})
        print("steps", run.env_steps, flush=True)
    """)  # fmt: skip
    ended = run_script(tmp_path, "forks")
    assert ended.returncode == 0, ended.err
    assert ended.out.count("steps") == 1
    assert len(metrics(tmp_path / "run", "totals")) == 1


def test_an_environment_that_only_the_script_knows_is_explained(tmp_path):
    write(tmp_path, "guarded", f"""
        import gymnasium
        import ga3c
        from tests.case_envs import Sign

        if __name__ == "__main__":
            gymnasium.register("Mine-v0", entry_point=Sign)
            ga3c.train("guarded:Mine-v0", {ARGUMENTS})
    """)  # fmt: skip
    ended = run_script(tmp_path, "guarded")
    assert ended.returncode == 1
    assert "it is known to the program that trains, but not to its workers: expected module:Id" in ended.err


def test_nothing_stays_after_ctrl_c_while_the_learner_makes_an_environment(tmp_path):
    (tmp_path / "makes.py").write_text(environment("""
    def __init__(self):
        self.process = subprocess.Popen(["sleep", "3277"], start_new_session=True)
        time.sleep(5)

    def close(self):
        self.process.kill()
"""))  # fmt: skip
    process = ga3c("train", "makes:Mine-v0", *SMALL, cwd=tmp_path, wait=False)
    assert wait_for(lambda: started(tmp_path))
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout=STOP_S).returncode == 130, process.err
    assert not started(tmp_path)


def test_a_second_ctrl_c_does_not_wait_for_environments_to_close(tmp_path):
    (tmp_path / "hangs.py").write_text(environment("""
    def __init__(self):
        self.process = subprocess.Popen(["sleep", "3278"], start_new_session=True)

    def close(self):
        time.sleep(1000 if "GA3C_WORKER" in os.environ else 0)
        self.process.kill()
"""))  # fmt: skip
    process = ga3c("train", "hangs:Mine-v0", "--out", "run", *SMALL, cwd=tmp_path, wait=False)
    wait_for_training(tmp_path / "run", process)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(4)  # it waits for the environments
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout=STOP_S).returncode == 130, process.err
    assert wait_for(lambda: not started(tmp_path), 10)
