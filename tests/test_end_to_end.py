"""The whole system, from the command line, on real environments and with real signals."""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ga3c.checkpoint import read_checkpoint
from ga3c.config import TrainConfig
from ga3c.folder import make_folder
from tests.running import SMALL, STOP_S, finish, ga3c, metrics, roles, wait_for, wait_for_training

pytestmark = pytest.mark.usefixtures("no_process_and_no_shared_memory_is_left")


def test_pong_frames_go_in_and_updates_come_out(tmp_path):
    run = ga3c("train", "--total-steps", 600, "--out", "run", *SMALL, cwd=tmp_path)
    assert run.returncode == 0, run.err
    for words in (
        "Pong-v5 on envpool",
        "frame skip 4",
        "677,943 parameters",
        "2 actors x 4 environments",
        "done after",
    ):
        assert words in run.out
    last = metrics(tmp_path / "run", "rates")[-1]
    assert last["env_steps"] >= 600
    assert last["frames"] == 4 * last["env_steps"]
    assert last["updates"] > 10
    samples = last["updates"] * 16
    assert abs(samples - last["env_steps"]) < 200  # what is not yet trained on is in flight, and that is bounded
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    assert written["protocol"].startswith("EnvPool, frame skip 4")
    assert "environ" not in json.dumps(written)


def test_ctrl_c_stops_a_run_and_resume_goes_on(tmp_path):
    folder = tmp_path / "run"
    process = ga3c("train", "CartPole-v1", "--out", "run", *SMALL, cwd=tmp_path, wait=False, start_new_session=True)
    wait_for_training(folder, process)
    titles = sorted(roles(tmp_path).values())
    assert titles == ["ga3c: actor 0", "ga3c: actor 1", "ga3c: forkserver", "ga3c: learner"]
    asked = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    finish(process)
    assert time.monotonic() - asked < STOP_S
    assert process.returncode == 130, process.err
    assert process.err == ""
    assert "resume with: ga3c train --resume run" in process.out
    before = metrics(folder, "rates")[-1]
    [checkpoint] = folder.glob("checkpoint-*.safetensors")
    assert int(re.findall(r"\d+", checkpoint.name)[0]) == before["env_steps"]

    total = before["env_steps"] + 3000
    run = ga3c("train", "--resume", "run", "--total-steps", total, cwd=tmp_path)
    assert run.returncode == 0, run.err
    assert f"resumed at {before['env_steps']:,} steps" in run.out
    after = metrics(folder, "rates")
    assert before in after  # one file, gone on with
    assert total <= after[-1]["env_steps"] < total + 2000
    assert after[-1]["updates"] > before["updates"]
    assert after[-1]["time_s"] > before["time_s"]
    for totals in metrics(folder, "totals"):  # of both
        accounted = totals["samples_trained"] + sum(totals["samples_dropped"].values()) + totals["samples_in_flight"]
        assert totals["env_steps"] - totals["resumed_steps"] == accounted > 0
    assert [totals["resumed_steps"] for totals in metrics(folder, "totals")] == [0, before["env_steps"]]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_sigterm_and_a_terminal_that_goes_end_a_run_with_a_checkpoint(tmp_path, number, code):
    process = ga3c("train", "CartPole-v1", "--out", "run", *SMALL, cwd=tmp_path, wait=False, start_new_session=True)
    wait_for_training(tmp_path / "run", process)
    os.killpg(process.pid, number)
    assert finish(process, timeout=STOP_S).returncode == code, process.err
    assert "resume with: ga3c train --resume run" in process.out
    assert list((tmp_path / "run").glob("checkpoint-*.safetensors"))


def test_a_run_has_its_folder_to_itself_and_nothing_in_dev_shm(tmp_path):
    process = ga3c("train", "CartPole-v1", "--out", "run", "--checkpoint-every", 1, *SMALL, cwd=tmp_path, wait=False)
    wait_for_training(tmp_path / "run", process)
    for pid in roles(tmp_path):
        assert "/dev/shm" not in (Path("/proc") / str(pid) / "maps").read_text()
    assert wait_for(lambda: list((tmp_path / "run").glob("checkpoint-*.safetensors")))
    second = ga3c("train", "--resume", "run", cwd=tmp_path)
    assert second.returncode == 2
    assert second.err == "ga3c: --resume: another run writes to run now; another folder would be right\n"
    process.terminate()
    assert finish(process, timeout=STOP_S).returncode == 143
    assert len(metrics(tmp_path / "run", "totals")) == 1


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {make_folder(TrainConfig(), Path.cwd()) for _ in range(5)}
    assert len(folders) == 5
    assert all(folder.is_dir() for folder in folders)


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    process = ga3c("train", "CartPole-v1", "--out", "run", *SMALL, cwd=tmp_path, wait=False)
    wait_for_training(tmp_path / "run", process)
    os.kill(process.pid, signal.SIGSTOP)  # both signals wait, and are delivered together
    for number in (signal.SIGINT, signal.SIGTERM):
        # To the main thread: of two to the process, another thread may take one, and then wait for a core.
        assert ctypes.CDLL(None).tgkill(process.pid, process.pid, number) == 0
    os.kill(process.pid, signal.SIGCONT)
    assert finish(process, timeout=STOP_S).returncode in (130, 143)
    assert "stopped after" not in process.out


@pytest.mark.parametrize("victim", ["ga3c: learner", "ga3c: forkserver"])
def test_nothing_is_left_of_a_run_whose_learner_or_forkserver_is_killed(tmp_path, victim):
    process = ga3c("train", "CartPole-v1", "--out", "run", *SMALL, cwd=tmp_path, wait=False)
    wait_for_training(tmp_path / "run", process)
    os.kill(next(pid for pid, title in roles(tmp_path).items() if title == victim), signal.SIGKILL)
    code = process.wait(STOP_S)  # and not for the end of its output, which the others have too
    assert code == (-9 if victim == "ga3c: learner" else 1)
    assert wait_for(lambda: not roles(tmp_path), timeout=2), roles(tmp_path)
    finish(process)


def test_an_exception_in_an_actor_ends_the_run_with_its_name_and_traceback(tmp_path):
    run = ga3c("train", "tests.tiny_envs:Raises-v0", "--out", "run", *SMALL, cwd=tmp_path)
    assert run.returncode == 1
    sentence = r"ga3c: actor \d failed:\nenvironment \d raised RuntimeError in step: the emulator is on fire\nTraceback"
    assert re.search(sentence, run.err), run.err


@pytest.mark.parametrize("role", ["predictor", "trainer"])
def test_an_exception_in_the_learner_ends_the_run_with_the_roles_name(tmp_path, role):
    (tmp_path / "bad_network.py").write_text(
        "import threading, torch\n"
        "class Bad(torch.nn.Linear):\n"
        "    def forward(self, states):\n"
        f"        if threading.current_thread().name.startswith('{role}'):\n"
        "            raise RuntimeError('out of memory')\n"
        "        x = super().forward(states)\n"
        "        return x, x[:, 0]\n"
        "def make(shape, actions):\n"
        "    return Bad(shape[0], actions)\n"
    )
    run = ga3c("train", "CartPole-v1", "--network", "bad_network:make", "--out", "run", *SMALL, cwd=tmp_path)
    assert run.returncode == 1
    assert f"ga3c: {role} 0 failed:\nTraceback" in run.err
    assert "out of memory" in run.err


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_what_was_learnt_before(tmp_path):
    (tmp_path / "nan_network.py").write_text(
        "import torch\n"
        "class Nan(torch.nn.Linear):\n"
        "    updates = 0\n"
        "    def forward(self, states):\n"
        "        x = super().forward(states)\n"
        "        if torch.is_grad_enabled():\n"
        "            self.updates += 1\n"
        "            if self.updates > 20:\n"
        "                x = x * float('nan')\n"
        "        return x, x[:, 0]\n"
        "def make(shape, actions):\n"
        "    return Nan(shape[0], actions)\n"
    )
    run = ga3c("train", "CartPole-v1", "--network", "nan_network:make", "--out", "run", *SMALL, cwd=tmp_path)
    assert run.returncode == 1
    assert "ga3c: trainer 0 failed:" in run.err
    assert "NonFiniteLossError" in run.err
    [path] = (tmp_path / "run").glob("checkpoint-*.safetensors")
    checkpoint = read_checkpoint(path)
    assert checkpoint.progress.updates == 20
    assert all(tensor.isfinite().all() for tensor in checkpoint.network.values())


def test_actors_make_their_environments_while_torch_is_loaded(tmp_path):
    code = """
import sys, time, types
def train(config, spec, server, sampler, *_, **__):
    deadline = time.monotonic() + 30
    while len(sampler.actors.pids()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return types.SimpleNamespace(exitcode=7 if len(sampler.actors.pids()) == 2 and "torch" not in sys.modules else 1)
sys.modules["ga3c.run"] = types.SimpleNamespace(train=train)
from ga3c.cli import run
sys.exit(run(["train", "CartPole-v1", "--actors", "2", "--device", "cpu"]))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, timeout=60)
    assert run.returncode == 7
    assert wait_for(lambda: not roles(tmp_path), 10)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nothing_is_left_of_a_run_that_is_ended_before_it_trains(tmp_path, number, code):
    process = ga3c("train", "--device", "cpu", "--out", "run", *SMALL, cwd=tmp_path, wait=False)
    assert wait_for(lambda: any(title.startswith("ga3c: actor") for title in roles(tmp_path).values()))
    process.send_signal(number)
    finish(process, timeout=STOP_S)
    assert process.returncode == code
    assert "Traceback" not in process.err
    assert wait_for(lambda: not roles(tmp_path), 10), roles(tmp_path)


def test_any_number_of_actors_predictors_and_trainers_work_together(tmp_path):
    counts = ["--actors", 5, "--envs-per-actor", 1, "--predictors", 3, "--trainers", 2, "--segments", 3]
    run = ga3c("train", "CartPole-v1", "--total-steps", 3000, "--out", "run", *counts, "--t-max", 5,
               "--min-training-batch", 0, cwd=tmp_path)  # fmt: skip
    assert run.returncode == 0, run.err
    last = metrics(tmp_path / "run", "rates")[-1]
    assert last["updates"] > 500


def test_eval_plays_whole_games_and_prints_json(tmp_path):
    ga3c("train", "CartPole-v1", "--total-steps", 3000, "--out", "run", *SMALL, cwd=tmp_path)
    run = ga3c("eval", "run", "--episodes", 5, "--json", "--seed", 3, cwd=tmp_path)
    assert run.returncode == 0, run.err
    result = json.loads(run.out)
    assert result["episodes"] == len(result["returns"]) == 5
    assert result["returns"] == [float(n) for n in result["lengths"]]  # CartPole pays 1 a step
    assert result["min"] <= result["median"] <= result["max"]
    assert result["human_normalised"] is None
    again = json.loads(ga3c("eval", "run", "--episodes", 5, "--json", "--seed", 3, cwd=tmp_path).out)
    assert again["returns"] == result["returns"]
    words = ga3c("eval", "run", "--episodes", 2, "--greedy", cwd=tmp_path).out
    assert "2 games, greedy: mean" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "Pnog-v5"], "nearest: Pong-v5"),
        (["train", "--acters", "3"], "--actors INT would be right"),
        (["eval", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_the_user_said_wrongly_is_answered_without_a_traceback(tmp_path, arguments, words):
    run = ga3c(*arguments, cwd=tmp_path)
    assert run.returncode == 2
    assert words in run.err
    assert run.err.startswith("ga3c: ")
    assert len(run.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path):
    ga3c("train", "CartPole-v1", "--total-steps", 200, "--out", "run", *SMALL, cwd=tmp_path)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    run = ga3c("train", "CartPole-v1", "--total-steps", 200, "--out", "run", *SMALL, cwd=tmp_path)
    assert run.returncode == 2
    assert "--resume run would go on with it" in run.err
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_networks_are_listed_with_their_cost(tmp_path):
    run = ga3c("networks", cwd=tmp_path)
    assert run.returncode == 0
    assert re.search(r"small +677,943 +5\.9", run.out)


@pytest.mark.gpu
def test_the_whole_system_runs_on_cuda(tmp_path):
    run = ga3c("train", "--device", "cuda", "--total-steps", 2000, "--out", "run", *SMALL, cwd=tmp_path)
    assert run.returncode == 0, run.err
    assert "cuda" in run.out


@pytest.mark.parametrize("mode", ["ga3c", "a3c", "a2c"])
def test_a_run_on_a_simulated_device_says_so_in_every_line_and_leaves_no_checkpoint(tmp_path, mode):
    run = ga3c(
        "train", "--mode", mode, "--device", "simulated:titan-x-maxwell", "--total-steps", 300, "--t-max", "5",
        "--out", "run", cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.err
    lines = [line for line in run.out.splitlines() if "PPS" in line]
    assert lines
    assert all(line.startswith("SIMULATED") for line in lines)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["device"] == "simulated:titan-x-maxwell"
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    assert metrics(tmp_path / "run", "rates")[-1]["updates"] > 0


def test_a_checkpoint_of_one_mode_is_continued_in_another(tmp_path):
    steps = 0
    for mode, arguments in (("a2c", ["--out", "run"]), ("a3c", ["--resume", "run"]), ("ga3c", ["--resume", "run"])):
        steps += 600
        run = ga3c("train", "Pong-v5", "--mode", mode, "--total-steps", steps, *arguments, cwd=tmp_path)
        assert run.returncode == 0, run.err
        assert f"mode {mode}," in run.out
        last = metrics(tmp_path / "run", "rates")[-1]
        assert last["env_steps"] >= steps
        assert json.loads((tmp_path / "run" / "config.json").read_text())["mode"] == mode
    assert "resumed at" in run.out
    again = ga3c("train", "--resume", "run", "--total-steps", steps + 300, cwd=tmp_path)
    assert "mode ga3c," in again.out  # without --mode the run goes on as it was


@pytest.mark.parametrize("mode", ["a3c", "a2c"])
def test_every_mode_stops_on_a_signal_with_a_checkpoint(tmp_path, mode):
    process = ga3c("train", "Pong-v5", "--mode", mode, "--out", "run", cwd=tmp_path, wait=False)
    wait_for_training(tmp_path / "run", process)
    process.send_signal(signal.SIGTERM)
    finish(process, timeout=STOP_S)
    assert process.returncode == 143, process.err
    assert "--resume run" in process.out
    assert list((tmp_path / "run").glob("checkpoint-*.safetensors"))
