"""What a run survives, and what it says of it: real kills, real signals, real limits of the system."""

import contextlib
import dataclasses
import os
import random
import re
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from ga3c.build import build_model
from ga3c.checkpoint import Progress
from ga3c.envs import EnvConfig, EnvError, env_spec, make_env
from ga3c.envs.base import check_finite
from ga3c.envs.envpool_backend import _STATE
from ga3c.errors import UsageError
from ga3c.ga3c import Ga3c
from ga3c.metrics import Meters
from ga3c.metrics_writer import MetricsWriter
from ga3c.presets import default_config
from ga3c.rlimits import provide_descriptors
from ga3c.system import Context
from tests.running import (
    ROOT,
    SMALL,
    STOP_S,
    finish,
    ga3c,
    handles_signals,
    metrics,
    roles,
    wait_for,
    wait_for_training,
)

pytestmark = pytest.mark.usefixtures("no_process_and_no_shared_memory_is_left")


def actors(folder):
    return [pid for pid, title in roles(folder).items() if title.startswith("ga3c: actor")]


def under(limit, *arguments, cwd):
    """Runs ``ga3c ... --out run`` in a shell under one of its limits."""
    words = shlex.join([sys.executable, "-m", "ga3c", *map(str, arguments), "--out", "run"])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return finish(
        subprocess.Popen(
            ["bash", "-c", f"{limit}; exec {words}"],
            cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
    )  # fmt: skip


def delivering(group):
    """Processes of the actors that have completed a rollout."""
    with group._lock:
        started = {record.generation for record in group._records.values() if record.channel.rollouts_completed}
    return [pid for generation, pid in group._pids.copy().items() if generation in started]


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_no_step_is_lost_or_trained_on_twice_though_actors_are_killed_again_and_again():
    spec = env_spec(EnvConfig("Pong-v5"))
    counts = {"actors": 4, "envs_per_actor": 2, "t_max": 5, "predictors": 2, "segments": 3, "min_training_batch": 20}
    config = dataclasses.replace(default_config("ga3c", "fast", spec, cuda=False), **counts, device="cpu")
    model, _ = build_model(config, spec)
    meters, said, draw = Meters(4), [], random.Random(1)
    system = Ga3c(Context(config, spec, model, meters, lambda: 1e-4, said.append, Progress()))
    system.start()
    before = descriptors(os.getpid())
    try:
        for kill in range(25):
            # Only such as have delivered, since one that ends 5 times before ends the run; and never the last.
            assert wait_for(lambda: system.failure or len(delivering(system.actors)) >= 2), said
            assert system.failure is None, system.failure
            time.sleep(draw.uniform(0.0, 0.2))
            os.kill(draw.choice(delivering(system.actors)), signal.SIGKILL)
            assert wait_for(lambda kill=kill: sum("was replaced" in line for line in said) == kill + 1), said
        steps = meters.env_steps
        assert wait_for(lambda: meters.env_steps > steps + 100)
        assert wait_for(lambda: len(system.actors.pids()) == 4)  # the last that was killed may be leaving still
        assert descriptors(os.getpid()) <= before + 4
        longest_gap_s = meters.rates()["prediction_gap_max_s"]
    finally:
        system.stop()
    assert system.failure is None, system.failure
    assert longest_gap_s < 10, "the others stopped"
    assert any("its unfinished rollout dropped: it died" in line for line in said)
    account = system.account()
    assert account.dropped["actor replaced"] > 0
    assert meters.env_steps == meters.samples + sum(account.dropped.values()) + account.in_flight


def tiny_system(name, said, **counts):
    """GA3C on a tiny environment, not started, and its meters."""
    spec = env_spec(EnvConfig(f"tests.tiny_envs:{name}-v0"))
    config = dataclasses.replace(
        default_config("ga3c", "fast", spec, cuda=False), env=f"tests.tiny_envs:{name}-v0", device="cpu", **counts
    )
    model, _ = build_model(config, spec)
    meters = Meters(1)
    return Ga3c(Context(config, spec, model, meters, lambda: 1e-4, said.append, Progress())), model, meters


def test_trainers_do_not_wait_for_an_actor_that_is_just_coming_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    # A batch needs all rollouts that both actors together can have out.
    system, _, meters = tiny_system(
        "SlowToMake", said, actors=2, envs_per_actor=2, t_max=4, segments=2, min_training_batch=16
    )
    system.start()
    try:
        assert wait_for(lambda: len(delivering(system.actors)) == 2 and meters.samples), said
        system.tick()
        (tmp_path / "slow").touch()  # from now on making one takes a minute
        os.kill(delivering(system.actors)[0], signal.SIGKILL)
        assert wait_for(lambda: any("was replaced" in line for line in said))
        system.tick()
        samples = meters.samples
        assert wait_for(lambda: meters.samples > samples + 200, 20), "the other actor's rollouts are not trained on"
    finally:
        system.stop()
    account = system.account()
    assert meters.env_steps == meters.samples + sum(account.dropped.values()) + account.in_flight


def test_actors_that_wait_for_their_turn_are_not_hung_and_go_on_after_one_that_hangs_or_dies_is_replaced(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ga3c.supervisor._START_TIMEOUT_S", 1.0)
    cores, said = len(os.sched_getaffinity(0)), []
    # All are needed for a batch; and Gymnasium makes environments on one core: as many as there are cores may at once.
    system, _, _ = tiny_system("SlowToMake", said, actors=cores + 2, envs_per_actor=1, t_max=4, actor_timeout=1.0)
    group = system.actors
    (tmp_path / "slow").touch()  # making one takes a minute

    def making():
        return {record.generation for record in list(group._records.values()) if record.channel.slab.begun[0]}

    def some_are_replaced():
        system.tick()
        hung = {record.generation for record in list(group._records.values()) if record.hung}
        assert hung <= making(), "one that waits for its turn was taken for hung"
        return any("it did nothing for 1 s" in line for line in said)

    system.start()
    try:
        assert wait_for(lambda: len(making()) == cores)
        time.sleep(0.5)
        first = making()
        assert len(first) == cores, "the others wait"
        os.kill(group._pids[min(first)], signal.SIGKILL)
        assert wait_for(lambda: making() - first), "nobody takes the dead one's place"
        assert wait_for(some_are_replaced)
        (tmp_path / "slow").unlink()
        assert wait_for(lambda: some_are_replaced() and group.at_work == cores + 2), said
    finally:
        system.stop()
    assert system.failure is None


def test_an_update_that_does_not_end_in_time_is_in_the_account(monkeypatch):
    said, begun = [], threading.Event()
    system, model, meters = tiny_system("Identity", said, actors=1, envs_per_actor=2, t_max=4, min_training_batch=8)
    update = model.update

    def slow(*arguments):
        if model.version < 3:
            return update(*arguments)
        begun.set()
        time.sleep(1)
        return update(*arguments)

    monkeypatch.setattr(model, "update", slow)
    monkeypatch.setattr("ga3c.ga3c.STOP_TIMEOUT_S", 0.2)
    system.start()
    assert begun.wait(60)
    system.stop()
    account, samples = system.account(), meters.samples
    assert "trainer 0 was still busy 0.2 s after it was asked to stop" in said
    assert account.dropped["update not finished"] == 8
    assert meters.env_steps == samples + sum(account.dropped.values()) + account.in_flight
    time.sleep(1)  # until it has ended


def test_an_actor_that_is_killed_five_times_before_its_first_rollout_ends_the_run():
    said = []
    system, _, meters = tiny_system("KillsItself", said, actors=1, envs_per_actor=1, t_max=8)
    system.start()
    try:
        assert wait_for(lambda: system.failure is not None)
    finally:
        system.stop()
    assert "it ended 5 times in a row without finishing a rollout; the last time: it died" in str(system.failure)
    assert sum("was replaced" in line for line in said) == 4
    assert said.count("actor: a process was ended by SIGKILL") >= 4
    assert meters.samples == 0, "a half-written rollout was trained on"


@pytest.mark.parametrize("mode", ["ga3c", "a3c"])
def test_an_actor_that_hangs_is_replaced(tmp_path, mode):
    counts = ["--actors", "2", "--t-max", "4"] if mode == "a3c" else SMALL
    process = ga3c("train", "tests.tiny_envs:HangsOnce-v0", "--mode", mode, "--actor-timeout", "2", "--out", "run",
                   *counts, cwd=tmp_path, wait=False)  # fmt: skip
    wait_for_training(tmp_path / "run", process)
    hung = wait_for((tmp_path / "hung").exists)
    steps = metrics(tmp_path / "run", "rates")[-1]["env_steps"]
    time.sleep(6)  # until it is noticed, and longer; the others play on meanwhile
    assert wait_for(lambda: metrics(tmp_path / "run", "rates")[-1]["env_steps"] > steps + 100, 30)
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout=STOP_S).returncode == 130, process.err
    assert hung
    role = "worker" if mode == "a3c" else "actor"
    assert re.search(rf"{role} \d was replaced, its unfinished rollout dropped: it did nothing for 2 s", process.out)


@pytest.mark.parametrize("mode", ["ga3c", "a3c", "a2c"])
def test_a_run_goes_on_after_an_environment_failed_if_it_is_asked_to(tmp_path, mode):
    counts = {"ga3c": SMALL, "a3c": ["--actors", "2"], "a2c": ["--envs-per-actor", "4"]}[mode]
    run = ga3c("train", "tests.tiny_envs:FailsOnce-v0", "--mode", mode, "--on-env-error", "replace",
               "--total-steps", "2000", "--out", "run", *counts, cwd=tmp_path)  # fmt: skip
    assert run.returncode == 0, run.err
    assert re.search(r"environment \d raised RuntimeError in step: the emulator is on fire", run.out)
    assert metrics(tmp_path / "run", "rates")[-1]["env_steps"] >= 2000


def test_an_environment_that_fails_each_time_ends_the_run_though_it_should_be_replaced(tmp_path):
    run = ga3c("train", "tests.tiny_envs:Raises-v0", "--on-env-error", "replace", "--out", "run",
               "--actors", "1", "--envs-per-actor", "1", "--t-max", "8", cwd=tmp_path)  # fmt: skip
    assert run.returncode == 1
    assert "actor 0 failed:\nit ended 5 times in a row without finishing a rollout" in run.err
    assert "environment 0 raised RuntimeError in step: the emulator is on fire" in run.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Raises", "environment 1 raised RuntimeError in step: the emulator is on fire"),
        ("NanState", "environment 1 returned a state that is not finite"),
        ("WrongShape", r"environment 1 returned a state of shape (4,); (3,) would be right"),
        ("WrongDtype", "environment 1 returned a state of <U1; float32 would be right"),
        ("OutOfRange", r"environment 1 returned a state with 7.0 at (1,); 0.0 to 1.0 would be right"),
        ("NanReward", "environment 1 returned the reward nan; a finite number would be right"),
    ],
)
def test_an_environment_that_breaks_its_word_is_named(name, words):
    env = make_env(EnvConfig(f"tests.tiny_envs:{name}-v0"), [1, 2])
    env.reset()
    env._env.envs[0].env.unwrapped.step = lambda action: (np.zeros(3, np.float32), 0.0, False, False, {})
    for _ in range(2):
        env.step(np.zeros(2, np.int64))
    with pytest.raises(EnvError) as caught:
        env.step(np.zeros(2, np.int64))
    assert words in str(caught.value)
    env.close()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"obs": np.full((2, 3), np.nan, np.float32)}, "environment 0 returned a state that is not finite"),
        ({"reward": np.array([0, np.inf], np.float32)}, "environment 1 returned a reward that is not finite"),
        (RuntimeError("the emulator is on fire"), "the environments raised RuntimeError in step: the emulator is on"),
    ],
)
def test_an_environment_of_envpool_that_breaks_its_word_is_named(monkeypatch, broken, words):
    env = make_env(EnvConfig("CartPole-v1", backend="envpool"), [1, 2])
    env.reset()
    step = env._step

    def break_it(actions):
        if isinstance(broken, Exception):
            monkeypatch.setattr(env._env, "_send", lambda _: (_ for _ in ()).throw(broken))
            return step(actions)
        return tuple(broken.get(name, array) for name, array in zip(_STATE, step(actions), strict=True))

    monkeypatch.setattr(env, "_step", break_it)
    with pytest.raises(EnvError, match=words):
        env.step(np.zeros(2, np.int64))
    env.close()


def test_what_is_not_finite_is_named_by_its_environment():
    check_finite("state", np.zeros((3, 2)))
    with pytest.raises(EnvError, match="environment 2 returned a state that is not finite"):
        check_finite("state", np.array([[0, 1], [2, 3], [4, np.inf]]))


def test_a_run_that_was_suspended_goes_on_and_takes_no_actor_for_hung(tmp_path):
    process = ga3c("train", "CartPole-v1", "--out", "run", *SMALL, "--actor-timeout", "3", cwd=tmp_path, wait=False)
    wait_for_training(tmp_path / "run", process)
    tree = list(roles(tmp_path))
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(6)
    for pid in tree:
        os.kill(pid, signal.SIGCONT)
    last = metrics(tmp_path / "run", "rates")[-1]
    assert wait_for(lambda: metrics(tmp_path / "run", "rates")[-1]["env_steps"] > last["env_steps"] + 1000, 20)
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout=STOP_S).returncode == 130
    assert re.search(r"the run stood still for \d+ s", process.out)
    assert "was replaced" not in process.out
    windows = metrics(tmp_path / "run", "rates")
    lengths = [after["time_s"] - before["time_s"] for before, after in pairwise(windows)]
    assert max(lengths) < 7, "the time that it stood still is no time of training"
    assert min(window["pps"] for window in windows[1:-1]) > 0  # the signal may come right after the last but one


def test_a_run_whose_whole_tree_is_killed_goes_on_from_its_last_checkpoint(tmp_path):
    process = ga3c("train", "CartPole-v1", "--checkpoint-every", "1", "--out", "run", *SMALL, cwd=tmp_path, wait=False)
    wait_for_training(tmp_path / "run", process)
    time.sleep(8)  # far more than may be lost
    assert wait_for(lambda: len(list((tmp_path / "run").glob("checkpoint-*.safetensors"))) >= 2, 20)
    killed = time.time()
    for pid in roles(tmp_path):
        os.kill(pid, signal.SIGKILL)
    assert finish(process, timeout=STOP_S).returncode == -9
    written = max((tmp_path / "run").glob("checkpoint-*.safetensors"))
    assert killed - written.stat().st_mtime < 1 + 4, "more than --checkpoint-every was lost"
    newest = int(re.findall(r"\d+", written.name)[0])
    run = ga3c("train", "--resume", "run", "--total-steps", newest + 500, cwd=tmp_path)
    assert run.returncode == 0, run.err
    assert f"resumed at {newest:,} steps" in run.out


def test_resume_falls_back_to_the_checkpoint_before_a_damaged_one(tmp_path):
    ga3c("train", "CartPole-v1", "--total-steps", "500", "--out", "run", *SMALL, cwd=tmp_path)
    [whole] = (tmp_path / "run").glob("checkpoint-*.safetensors")
    damaged = whole.with_name("checkpoint-999999999999.safetensors")
    damaged.write_bytes(whole.read_bytes()[:1000])
    steps = int(re.findall(r"\d+", whole.name)[0])
    run = ga3c("train", "--resume", "run", "--total-steps", steps + 300, cwd=tmp_path)
    assert run.returncode == 0, run.err
    assert f"resumed at {steps:,} steps" in run.out
    assert f"skipped: run/{damaged.name} cannot be read as a checkpoint" in run.out


def test_a_full_disk_costs_neither_the_run_nor_the_metrics(tmp_path):
    # 4 KB a file: the configuration fits, the metrics and checkpoints do not.
    run = under("ulimit -f 4", "train", "CartPole-v1", "--checkpoint-every", 1, "--minutes", 0.4, *SMALL, cwd=tmp_path)
    assert run.returncode == 0, run.err
    assert "checkpoint not written: [Errno 27]" in run.out
    assert "metrics not written: [Errno 28]" in run.out
    metrics(tmp_path / "run", "rates")  # can be read: there are whole lines only
    assert not list((tmp_path / "run").glob("*.partial"))


def test_a_disk_that_is_full_for_a_while_costs_nothing_but_the_checkpoints_of_that_while(tmp_path):
    process = ga3c("train", "CartPole-v1", "--checkpoint-every", 1, "--out", "run", *SMALL, cwd=tmp_path, wait=False)
    folder = tmp_path / "run"
    wait_for_training(folder, process)
    assert wait_for(lambda: len(list(folder.glob("checkpoint-*.safetensors"))) >= 1)
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    time.sleep(6)
    lines, good = len((folder / "metrics.jsonl").read_text().splitlines()), max(folder.glob("checkpoint-*.safetensors"))
    time.sleep(2)
    assert max(folder.glob("checkpoint-*.safetensors")) == good
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
    assert wait_for(lambda: max(folder.glob("checkpoint-*.safetensors")) > good, 20)
    assert wait_for(lambda: len((folder / "metrics.jsonl").read_text().splitlines()) > lines, 20)
    process.terminate()
    assert finish(process, timeout=STOP_S).returncode == 143, process.err
    assert "checkpoint not written" in process.out
    assert "metrics not written" in process.out
    [totals], last = metrics(folder, "totals"), metrics(folder, "rates")[-1]
    assert totals["env_steps"] >= last["env_steps"] > 0
    lengths = sum(line["length"] for line in metrics(folder, "episode"))
    assert totals["env_steps"] - 8 * 500 < lengths <= totals["env_steps"], "episodes of that while are missing"


def test_metrics_that_could_not_be_written_are_written_later(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = MetricsWriter(tmp_path)
    writer._board = None
    writer.write([{"kind": "episode", "n": 0}])
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        for n in range(1, 6):
            with contextlib.suppress(OSError):
                writer.write([{"kind": "episode", "n": n}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(metrics(tmp_path, "episode")) < 6
    writer.write([{"kind": "episode", "n": 6}])
    writer.close()
    assert [line["n"] for line in metrics(tmp_path, "episode")] == list(range(7))


def test_too_few_descriptors_are_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    provide_descriptors(4)
    with pytest.raises(UsageError, match=r"--actors: 64 actors need 288 open files, and this system allows 256"):
        provide_descriptors(64)
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    provide_descriptors(64)
    assert raised == [(288, 4096)]


def test_a_run_fits_into_256_descriptors(tmp_path):
    counts = ["--actors", 16, "--envs-per-actor", 1, "--t-max", 5, "--total-steps", 500]
    run = under("ulimit -n 256", "train", "CartPole-v1", *counts, cwd=tmp_path)
    assert run.returncode == 0, run.err


def test_a_line_that_a_killed_run_left_torn_is_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "episode", "n": 1}\n{"kind": "epi')
    writer = MetricsWriter(tmp_path)
    writer._board = None
    writer.write([{"kind": "episode", "n": 2}])
    writer.close()
    assert [line["n"] for line in metrics(tmp_path, "episode")] == [1, 2]
    path.write_text('{"torn')
    MetricsWriter(tmp_path).close()
    assert path.read_text() == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_at_any_instant_ends_the_run(tmp_path, number, code):
    draw = random.Random(int(number))
    for attempt in range(3):
        process = ga3c("train", "CartPole-v1", "--out", f"run{attempt}", *SMALL, cwd=tmp_path, wait=False)
        assert wait_for(lambda pid=process.pid: handles_signals(pid))  # before it is Python's to answer them
        time.sleep(draw.uniform(0, 6))
        process.send_signal(number)
        finish(process, timeout=STOP_S)
        assert process.returncode == code, (process.out, process.err)
        assert process.err == ""
        folder = tmp_path / f"run{attempt}"
        has_metrics = (folder / "metrics.jsonl").exists()
        updates = max((line["updates"] for line in metrics(folder, "rates")), default=0) if has_metrics else 0
        assert len(list(folder.glob("checkpoint-*.safetensors"))) == (updates > 0)
        assert ("stopped after" in process.out) >= (updates > 0)


@pytest.mark.parametrize("suspended_s", [0, 3])
def test_what_never_returns_in_the_learner_ends_it_with_a_sentence_and_a_suspension_does_not(suspended_s):
    code = f"""
import time
from ga3c import watchdog
watchdog._SHORTEST_S, watchdog._LOOK_S = 2.0, 0.1
with watchdog.time_limit(0.1, "making X-v0"):
    print("begun", flush=True)
    time.sleep({1 if suspended_s else 100})
print("ended")
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout.readline() == "begun\n"
        if suspended_s:
            it.send_signal(signal.SIGSTOP)
            time.sleep(suspended_s)
            it.send_signal(signal.SIGCONT)
        out, err = it.communicate(timeout=30)
    if suspended_s:
        assert (it.returncode, out) == (0, "ended\n")
    else:
        assert it.returncode == 1
        assert err == "ga3c: making X-v0 has not ended in 2 s; --actor-timeout allows more\n"


@contextlib.contextmanager
def busy_core(count):
    """One core, with so many processes that are busy on it."""
    core = min(os.sched_getaffinity(0))
    text = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", text]) for _ in range(count)]
    try:
        yield core
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("doing", "out", "err"),
    [
        ("while time.thread_time() < began + 1: pass", "ended\n", ""),  # 8 s by the clock
        ("time.sleep(100)", "", "ga3c: making X-v0 has not ended in 3 s; --actor-timeout allows more\n"),
    ],
)
def test_what_waits_for_a_core_is_not_taken_for_hung(doing, out, err):
    code = """
import os, sys, time
from ga3c import watchdog
watchdog._SHORTEST_S, watchdog._LOOK_S = 3.0, 0.1
os.sched_setaffinity(0, [int(sys.argv[1])])
with watchdog.time_limit(0.1, "making X-v0"):
    began = time.thread_time()
    exec(sys.argv[2])
print("ended")
"""
    with busy_core(7) as core:
        ended = subprocess.run(
            [sys.executable, "-c", code, str(core), doing], capture_output=True, text=True, check=False, timeout=100
        )
    assert (ended.stdout, ended.stderr) == (out, err)


def test_more_actors_than_the_soft_limit_of_descriptors_are_forked(tmp_path):
    counts = ["--actors", 40, "--envs-per-actor", 1, "--t-max", 5, "--total-steps", 500]
    run = under("ulimit -Sn 64", "train", "CartPole-v1", *counts, cwd=tmp_path)
    assert run.returncode == 0, run.err


def test_a_forkserver_that_cannot_start_is_said_in_a_sentence(tmp_path):
    code = """
import sys
from ga3c import forkserver
forkserver.sys.executable = "/bin/true"
from ga3c.cli import run
sys.exit(run(["train", "CartPole-v1", "--device", "cpu"]))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("ga3c: forkserver: it ended")
    assert "Traceback" not in ended.stderr
