"""What a Python program can do with the package, on real environments and with real processes."""

import gc
import os
import platform
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import get_type_hints

import gymnasium
import numpy as np
import pytest
import torch

import ga3c
from ga3c.api import EnvOptions, TrainOptions
from ga3c.config import TrainConfig
from ga3c.envs import EnvConfig, env_seeds, make_env
from ga3c.events import EVENTS_KEPT, EpisodeEvent, Events
from tests.running import ROOT, STOP_S, finish, metrics, roles, wait_for_training

SMALL = {
    "ga3c": {"actors": 2, "envs_per_actor": 4, "min_training_batch": 16, "t_max": 4},
    "a3c": {"actors": 2, "t_max": 4},
    "a2c": {"envs_per_actor": 4, "t_max": 4},
}
PAGE = ROOT / "docs" / "python.md"

pytestmark = pytest.mark.usefixtures("no_process_and_no_shared_memory_is_left")


def train(folder, mode="ga3c", **options):
    return ga3c.train("CartPole-v1", mode=mode, out=folder, device="cpu", quiet=True, **SMALL[mode], **options)


@pytest.mark.parametrize("mode", ["ga3c", "a3c", "a2c"])
def test_callbacks_are_told_every_update_and_every_game_in_order(tmp_path, capfd, mode):
    updates, games, threads = [], [], set()

    def on_update(update):
        updates.append(update)
        threads.add(threading.current_thread())

    run = train(tmp_path / "run", mode, total_steps=600, on_update=on_update, on_episode=games.append)
    assert capfd.readouterr() == ("", "")
    assert run.exitcode == 0
    assert run.env_steps >= 600
    assert [update.number for update in updates] == list(range(1, run.updates + 1))
    assert threads == {threading.current_thread()}
    [totals] = metrics(run.folder, "totals")
    assert sum(update.samples for update in updates) == totals["samples_trained"]
    assert [game.line() for game in games] == metrics(run.folder, "episode")
    assert run.score == pytest.approx(np.mean([game.episode_return for game in games[-100:]]))
    assert all(0 <= update.entropy <= np.log(2) + 1e-6 for update in updates)
    assert ga3c.load(run.folder).act(np.zeros((3, 4))).shape == (3,)


def test_a_callback_that_returns_false_ends_the_run_and_the_process_is_as_it_was(tmp_path):
    torch.set_num_threads(2)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT)]
    title, drawn = Path("/proc/self/cmdline").read_bytes(), torch.get_rng_state()
    try:
        for name in ("one", "two"):
            run = train(tmp_path / name, "a2c", torch_threads=1, on_update=lambda update: update.number < 5)
            assert run.exitcode == 0
            assert run.updates >= 5
            assert list(run.folder.glob("checkpoint-*.safetensors"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT)]
    assert title == Path("/proc/self/cmdline").read_bytes()
    assert torch.equal(drawn, torch.get_rng_state())
    resumed = ga3c.train(resume=str(run.folder), total_steps=run.env_steps + 500, quiet=True)
    assert resumed.folder == run.folder
    assert resumed.env_steps >= run.env_steps + 500


def scheduled(task):
    """The policy of a thread, and its slice in ms where the kernel says so and can be asked for another."""
    policy = os.sched_getscheduler(int(task.name))
    release = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    try:
        told = dict(re.findall(r"^(\S+)\s*:\s*(\d+)$", (task / "sched").read_text(), re.MULTILINE))
    except FileNotFoundError:
        told = {}
    return policy, int(told["se.slice"]) / 1e6 if "se.slice" in told and release >= (6, 12) else None


def test_all_of_a_run_is_scheduled_as_batch_work_with_long_slices_and_its_caller_as_before(tmp_path):
    def caller():
        return scheduled(Path(f"/proc/self/task/{threading.get_native_id()}"))

    before, seen = caller(), {}

    def on_update(update):
        seen["caller"] = [caller()]
        for pid, title in roles(Path.cwd()).items():
            seen[title] = [scheduled(task) for task in Path(f"/proc/{pid}/task").iterdir()]
        return False

    train(tmp_path / "run", on_update=on_update)
    assert {"caller", "ga3c: actor 0", "ga3c: actor 1"} <= set(seen)
    for title, threads in seen.items():
        policies = [policy for policy, _ in threads]
        gives_way = policies.count(os.SCHED_IDLE)  # what makes EnvPool's buffers; an actor may not have begun yet
        assert gives_way <= title.startswith("ga3c: actor"), title
        assert policies.count(os.SCHED_BATCH) == len(policies) - gives_way, title
        assert {slice_ms for policy, slice_ms in threads if policy == os.SCHED_BATCH} <= {100, None}, title
    assert any(policy == os.SCHED_IDLE for threads in seen.values() for policy, _ in threads)
    assert caller() == before


def test_what_a_callback_raises_is_raised_once_what_was_learnt_is_written(tmp_path):
    def on_episode(game):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        train(tmp_path / "run", on_episode=on_episode)
    assert not roles(tmp_path)
    [totals] = metrics(tmp_path / "run", "totals")
    assert totals["samples_trained"] > 0
    assert list((tmp_path / "run").glob("checkpoint-*.safetensors"))


def test_training_in_a_thread_is_stopped_by_a_callback(tmp_path):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(train(tmp_path / "run", on_update=lambda update: False)))
    thread.start()
    thread.join(60)
    [run] = runs
    assert run.updates >= 1


@pytest.mark.parametrize(
    ("number", "mode", "code", "said"),
    [(signal.SIGINT, "ga3c", 0, "interrupted\n"), (signal.SIGTERM, "a2c", -15, "")],
)
def test_a_signal_ends_the_run_and_then_goes_its_way(tmp_path, number, mode, code, said):
    program = (
        "import ga3c, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell may have set otherwise
        "try:\n"
        f"    ga3c.train('CartPole-v1', mode='{mode}', out='run', device='cpu', quiet=True)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_training(tmp_path / "run", process)
    process.send_signal(number)
    finish(process, timeout=STOP_S)
    assert (process.returncode, process.out, process.err) == (code, said, "")
    assert list((tmp_path / "run").glob("checkpoint-*.safetensors"))


def test_of_events_that_wait_the_newest_are_kept_and_the_rest_counted():
    told = []
    events = Events(on_episode=told.append)
    for number in range(EVENTS_KEPT + 7):
        events.finished(EpisodeEvent(float(number), 1, number, 0.0))
    assert events.lost == 7
    assert events.tell(60)
    assert [game.env_steps for game in told] == list(range(7, EVENTS_KEPT + 7))
    assert events.tell(60)
    assert len(told) == EVENTS_KEPT


def test_callbacks_that_take_long_leave_time_for_the_rest_of_the_run():
    told = []

    def slowly(game):
        told.append(game.env_steps)
        time.sleep(0.05)

    events = Events(on_episode=slowly)
    for number in range(100):
        events.finished(EpisodeEvent(0.0, 1, number, 0.0))
    assert events.tell(0.1)
    assert 1 <= len(told) < 100
    while len(told) < 100:
        assert events.tell(1)
    assert told == list(range(100))


@pytest.mark.parametrize("callback", [{"on_update": 3}, {"on_episode": "print"}])
def test_what_is_no_function_is_refused_before_anything_starts(tmp_path, monkeypatch, callback):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ga3c.UsageError, match="a function would be right"):
        ga3c.train("CartPole-v1", total_steps=10, **callback)
    assert not list(tmp_path.iterdir())


def test_who_has_said_false_is_not_called_again():
    told = []
    events = Events(on_episode=lambda game: told.append(game) or False)
    for _ in range(3):
        events.finished(EpisodeEvent(0.0, 1, 1, 0.0))
    assert not events.tell(60)
    events.finished(EpisodeEvent(0.0, 1, 1, 0.0))
    assert not events.tell(60)
    assert len(told) == 1


@pytest.mark.parametrize(("answer", "goes_on"), [(None, True), (0, True), (True, True), (np.False_, False)])
def test_only_false_asks_the_run_to_stop(answer, goes_on):
    events = Events(on_episode=lambda game: answer)
    events.finished(EpisodeEvent(1.0, 1, 1, 0.0))
    assert events.tell(60) is goes_on


def test_the_options_of_train_and_make_vec_are_those_of_the_configurations():
    own = {"out", "resume", "network"}  # which take more than one type
    options, config = get_type_hints(TrainOptions, localns={"nn": torch.nn}), get_type_hints(TrainConfig)
    del config["env"]
    assert set(options) == set(config)
    assert {n: kind for n, kind in options.items() if n not in own} == {n: k for n, k in config.items() if n not in own}
    treatment = get_type_hints(EnvConfig)
    del treatment["id"], treatment["max_episode_steps"]  # which an evaluation alone sets
    assert get_type_hints(EnvOptions) == treatment


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"acters": 3}, "there is no option 'acters'; nearest: actors"),
        ({"actors": "3"}, "--actors: got '3'; int would be right"),
        ({"actors": True}, "--actors: got True; int would be right"),
        ({"actors": 0}, "--actors: got 0; 1 to 1024 would be right"),
        ({"mode": "ppo"}, "--mode: got 'ppo'; ga3c, a3c, a2c would be right"),
        ({"out": 3}, "--out: got 3;"),
        ({"env": "Pnog-v5"}, "nearest: Pong-v5"),
        ({"env": "Qqqqq-v0"}, "one of your own would be module:Id"),
        ({"frame_skip": 2}, "--frame-skip: only Atari games have it"),
        ({"network": lambda shape, actions: None}, "a function or class at the top level of a module"),
        ({"network": "mpl"}, "unknown network 'mpl'; nearest: mlp"),
        ({"resume": "nowhere"}, "--resume: nowhere does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ga3c.UsageError, match=re.escape(words)):
        ga3c.train(**{"env": "CartPole-v1", **options})
    assert list(tmp_path.iterdir()) == []


def test_every_public_name_is_there_and_none_is_a_rooms():
    for name in ga3c.__all__:
        assert getattr(ga3c, name) is not None
        assert not (Path(ga3c.__file__).parent / f"{name}.py").exists()
        assert not (Path(ga3c.__file__).parent / name).exists()
    assert set(ga3c.__all__) <= set(dir(ga3c))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = ga3c.nope


def test_make_vec_gives_pong_as_it_is_in_training():
    actions = np.random.default_rng(0).integers(0, 6, (60, 2))
    plain = make_env(EnvConfig("Pong-v5"), env_seeds(7, 0, 0, 2))
    games = ga3c.make_vec("Pong-v5", 2, seed=7)
    assert games.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.NEXT_STEP
    np.testing.assert_array_equal(games.reset()[0], plain.reset())
    rewards = 0
    for chosen in actions:
        observations, reward, terminated, truncated, infos = games.step(chosen)
        step = plain.step(chosen)
        assert games.observation_space.contains(observations)
        np.testing.assert_array_equal(observations, step.states)
        np.testing.assert_array_equal(infos["game_reward"], step.game_rewards)
        assert not (terminated | truncated).any()
        rewards += np.abs(reward).sum()
    assert rewards > 0
    for env in (plain, games):
        env.close()


def test_make_vec_is_a_vector_environment_whose_games_a_policy_plays(tmp_path):
    policy = ga3c.load(train(tmp_path / "run", total_steps=200).folder)
    games = gymnasium.wrappers.vector.RecordEpisodeStatistics(ga3c.make_vec(policy.config.env_config(), 3))
    first, _ = games.reset(seed=5)
    observations, ended, played = first, np.zeros(3, np.bool_), 0
    while played < 12:
        observations, rewards, terminated, truncated, infos = games.step(policy.act(observations))
        assert (rewards[ended] == 0).all()  # that step has only reset the game
        ended = terminated | truncated
        assert ("game" in infos) == ended.any()
        if ended.any():
            np.testing.assert_array_equal(infos["_game"], ended)
            np.testing.assert_array_equal(infos["game"]["r"], np.where(ended, infos["episode"]["r"], 0))
            np.testing.assert_array_equal(infos["game"]["l"], np.where(ended, infos["episode"]["l"], 0))
            played += int(ended.sum())
    assert (games.reset()[0] != first).any()
    np.testing.assert_array_equal(games.reset(seed=5)[0], first)
    games.close()


@pytest.mark.parametrize(
    ("actions", "words"),
    [([0], "2 integers from 0 to 1"), ([0, 2], "2 integers"), ([0, -1], "2 integers"), ([0.0, 1.0], "2 integers")],
)
def test_make_vec_refuses_what_are_no_actions(actions, words):
    games = ga3c.make_vec("CartPole-v1", 2)
    with pytest.raises(ga3c.UsageError, match="before reset"):
        games.step([0, 1])
    games.reset()
    with pytest.raises(ga3c.UsageError, match=words):
        games.step(actions)
    games.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_envs": 0}, "num_envs: got 0; 1 to 1024 would be right"),
        ({"num_envs": "4"}, "num_envs: got '4'; 1 to 1024 would be right"),
        ({"frame_skips": 2}, "there is no option 'frame_skips'; nearest: frame_skip"),
        ({"frame_skip": 0}, "--frame-skip: got 0"),
        ({"actors": 2}, "there is no option 'actors'"),
        ({"env": "CartPole-v1", "frame_skip": 8}, "--frame-skip: only Atari games have it, and CartPole-v1 is none"),
    ],
)
def test_make_vec_says_what_is_wrong(options, words):
    with pytest.raises(ga3c.UsageError, match=words):
        ga3c.make_vec(**{"env": "Pong-v5"} | options)


def blocks(page):
    """The programs on a page, by the names in their first lines."""
    programs = re.findall(r"```python\n(# (\S+)\n.*?)```", page.read_text(), re.DOTALL)
    assert len(programs) == page.read_text().count("```python")
    return {name: program for program, name in programs}


def test_the_programs_on_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    programs = blocks(PAGE)
    for name, program in programs.items():
        (tmp_path / name).write_text(program)
    for name in programs:
        runpy.run_path(name, run_name="__main__")
    gc.collect()  # what a program has left in cycles holds descriptors until then
    said = capsys.readouterr().out
    for words in ("returns [", "stopped after", "update 10: entropy", "mean return of the last 100 games"):
        assert words in said
    assert len(list((tmp_path / "runs").iterdir())) == 4
    for name in ("my_game", "my_network"):
        monkeypatch.delitem(sys.modules, name)
