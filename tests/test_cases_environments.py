"""Environments, evaluation and what is shown, after users' reports (see ``case_envs``): each stands for a kind."""

import dataclasses
import json
import re
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import vector

import ga3c
from ga3c.checkpoint import Progress, snapshot, write_checkpoint
from ga3c.config import TrainConfig
from ga3c.envs import EnvConfig, atari_game, env_seeds, env_spec, envs_in_one_process, make_env
from ga3c.errors import UsageError
from ga3c.eval_progress import ranges
from ga3c.evaluate import evaluate, play
from ga3c.export import export
from ga3c.metrics import Meters
from ga3c.metrics_writer import MetricsWriter
from ga3c.networks import build_network
from ga3c.optim import build_optimiser
from ga3c.report.runs import read_run
from tests import case_envs
from tests.running import ROOT, SMALL
from tests.running import ga3c as run_ga3c

SIGN = [*SMALL, "--total-steps", "300"]


def agent(folder, env, **options):
    """A run's folder with a checkpoint of random weights."""
    config = TrainConfig(env=f"tests.case_envs:{env}-v0", device="cpu", **options)
    spec = env_spec(config.env_config())
    config = dataclasses.replace(config, network="small" if spec.is_image else "mlp")
    torch.manual_seed(0)
    network = build_network(config.network, spec.observation_shape, spec.num_actions, "orthogonal")
    optimiser = build_optimiser("adam", network.parameters(), 1e-2, 0.99, 1e-5)
    folder.mkdir()
    write_checkpoint(folder, config, Progress(100, 3, 1.5), snapshot(network, optimiser), keep=3)
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    return folder


@pytest.mark.parametrize("name", ["LegalMoves", "Winner"])
def test_infos_of_any_form_are_dropped(name):
    env = make_env(EnvConfig(f"tests.case_envs:{name}-v0"), [1, 2, 3, 4])
    env.reset()
    for _ in range(30):
        step = env.step(np.zeros(4, np.int64))
    env.close()
    assert step.states.shape == (4, 2)


@pytest.mark.parametrize(("name", "mode"), [("LegalMoves", "ga3c"), ("Winner", "a3c"), ("LegalMoves", "a2c")])
def test_an_environment_whose_infos_differ_trains_in_every_mode(tmp_path, name, mode):
    counts = SMALL if mode == "ga3c" else []
    budget = [*counts, "--total-steps", 300]
    run = run_ga3c("train", f"tests.case_envs:{name}-v0", "--mode", mode, *budget, "--out", "run", cwd=tmp_path)
    assert run.returncode == 0, run.err


def test_only_environments_of_gymnasium_keep_to_the_count_of_an_actor():
    assert envs_in_one_process(EnvConfig("CartPole-v1"), 16, 2) == 16
    assert envs_in_one_process(EnvConfig("CartPole-v1", backend="gymnasium"), 16, 2) == 2
    assert envs_in_one_process(EnvConfig("tests.case_envs:Sign-v0"), 3, 8) == 3


def test_one_emulator_a_process_is_enough_to_evaluate_and_export(tmp_path):
    folder = agent(tmp_path / "run", "Single", envs_per_actor=1)
    assert evaluate(folder, episodes=2, device="cpu").lengths == [10, 10]
    assert export(folder, format="torch").states == 24
    assert case_envs.Single.alive == 0


@pytest.mark.parametrize(
    ("env", "game", "sticky"),
    [
        ("ale_py:ALE/Breakout-v5", "breakout", "0.25"),
        ("ale_py:PongNoFrameskip-v4", "pong", "0"),
        ("PongNoFrameskip-v0", "pong", "0.25"),
        ("ale_py:MsPacman-v4", "ms_pacman", "0"),
        ("tests.case_envs:ALE/Breakout-v5", "breakout", "0.25"),
    ],
)
def test_every_id_of_ale_pys_gets_the_atari_treatment(env, game, sticky):
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    spec = env_spec(EnvConfig(env))
    assert (spec.backend, spec.game, spec.frames_per_step) == ("gymnasium", game, 4)
    assert (spec.observation_shape, spec.observation_dtype) == ((4, 84, 84), "uint8")
    assert f"sticky actions {sticky};" in spec.protocol
    assert "sticky actions 0.5;" in env_spec(EnvConfig(env, sticky_actions=0.5)).protocol


def test_rewards_of_an_atari_game_by_any_id_are_clipped():
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    env = make_env(EnvConfig("ale_py:SpaceInvadersNoFrameskip-v4"), [1, 2])
    env.reset()
    draw = np.random.default_rng(0)
    steps = [env.step(draw.integers(0, 6, 2)) for _ in range(300)]
    env.close()
    assert max(step.game_rewards.max() for step in steps) > 1
    assert max(step.rewards.max() for step in steps) == 1


def test_an_atari_game_without_pictures_is_refused_in_a_sentence():
    pytest.importorskip("ale_py")
    gymnasium.register("OwnPong-ram-v4", entry_point="ale_py.env:AtariEnv", kwargs={"game": "pong", "obs_type": "ram"})
    with pytest.raises(UsageError, match="has observations of type 'ram'; expected an Atari game with pictures"):
        env_spec(EnvConfig("OwnPong-ram-v4"))
    del gymnasium.registry["OwnPong-ram-v4"]


def test_a_misspelt_atari_id_is_answered_with_those_of_ale_py():
    pytest.importorskip("ale_py")
    with pytest.raises(UsageError, match="nearest: PongNoFrameskip-v4"):
        env_spec(EnvConfig("PongNoFrameskp-v4"))


@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
def test_a_game_can_be_cut_after_a_number_of_steps(backend):
    config = EnvConfig("CartPole-v1", backend=backend, max_episode_steps=5)
    env = make_env(config, env_seeds(1, 0, 0, 3))

    class Left:
        def act(self, states, *, greedy):
            return np.arange(len(states)) % 2

    games = play(Left(), env, 7, greedy=False, max_episode_steps=5)
    env.close()
    assert [game.env for game in games] == [0, 0, 0, 1, 1, 2, 2]
    assert all(game.is_cut and game.length == 5 and game.episode_return == 5 for game in games)


def test_a_limit_beyond_the_environments_own_cuts_nothing(tmp_path):
    result = evaluate(agent(tmp_path / "run", "Sign"), episodes=4, max_episode_steps=11)
    assert result.cut_in == []
    assert result.lengths == [10] * 4
    with pytest.raises(UsageError, match="--max-episode-steps: got 0; expected at least 1"):
        evaluate(tmp_path / "run", max_episode_steps=0)


def test_an_environment_that_ignores_the_limit_counts_as_cut_there():
    class Idle:
        def act(self, states, *, greedy):
            return np.zeros(len(states), np.int64)

    env = make_env(EnvConfig("tests.case_envs:Sign-v0"), [1, 2])
    games = play(Idle(), env, 4, greedy=False, max_episode_steps=4)
    env.close()
    assert [(game.length, game.is_cut) for game in games] == [(4, True)] * 4


def test_eval_cuts_endless_games_and_says_where(tmp_path):
    agent(tmp_path / "run", "Endless")
    words = run_ga3c("eval", "run", "--episodes", 3, "--max-episode-steps", 20, cwd=tmp_path)
    assert words.returncode == 0, words.err
    assert "3 games were cut after 20 steps, in environments 0 to 2; the return until then counts" in words.out
    machine = run_ga3c("eval", "run", "--episodes", 3, "--max-episode-steps", 20, "--json", cwd=tmp_path)
    found = json.loads(machine.out)
    assert (found["cut"], found["cut_in"], found["max_episode_steps"], found["lengths"]) == (3, [0, 1, 2], 20, [20] * 3)
    newest = read_run(tmp_path / "run", "run")
    assert newest.evaluation_kind == "3 games, sampled, cut after 20 steps"


def test_numbers_of_environments_are_told_in_words():
    assert ranges([7, 0, 1, 2, 2, 9, 10]) == "0 to 2, 7, 9, 10"


WRAPPERS = {
    "RecordEpisodeStatistics": vector.RecordEpisodeStatistics,
    "NormalizeReward": vector.NormalizeReward,
    "NormalizeObservation": vector.NormalizeObservation,
    "ClipReward": lambda env: vector.ClipReward(env, -1, 1),
    "TransformReward": lambda env: vector.TransformReward(env, lambda reward: 2 * reward),
    "TransformObservation": lambda env: vector.TransformObservation(env, lambda observation: 2 * observation),
    "TransformAction": lambda env: vector.TransformAction(env, lambda action: 1 - action),
    "FlattenObservation": vector.FlattenObservation,
    "ReshapeObservation": lambda env: vector.ReshapeObservation(env, (2, 2)),
    "DtypeObservation": lambda env: vector.DtypeObservation(env, np.float64),
    "DictInfoToList": vector.DictInfoToList,
    "VectorizeTransformReward": lambda env: vector.VectorizeTransformReward(
        env, gymnasium.wrappers.TransformReward, func=lambda reward: 2 * reward
    ),
    "all of their statistics": lambda env: vector.DictInfoToList(vector.RecordEpisodeStatistics(env)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_gymnasiums_vector_wrappers_work_around_make_vec(wrap):
    games = wrap(ga3c.make_vec("CartPole-v1", 3))
    observations, _ = games.reset(seed=1)
    assert games.observation_space.shape == observations.shape
    told = []
    for _ in range(60):
        observations, _, terminated, _, infos = games.step(np.ones(3, np.int64))
        by_env = infos if isinstance(infos, list) else [{"game": 1} if m else {} for m in infos.get("_game", [0] * 3)]
        assert [("game" in info) for info in by_env] == list(terminated)
        told += terminated.tolist()
    assert any(told)
    games.close()


@pytest.mark.parametrize("wrap", [vector.GrayscaleObservation, lambda env: vector.ResizeObservation(env, (4, 42))])
def test_gymnasiums_wrappers_for_pictures_take_what_make_vec_gives(wrap):
    pytest.importorskip("cv2")
    games = ga3c.make_vec("Pong-v5", 2)
    games = wrap(vector.TransformObservation(games, lambda o: o[:, :3].transpose(0, 2, 3, 1), gymnasium.spaces.Box(
        0, 255, (2, 84, 84, 3), np.uint8), gymnasium.spaces.Box(0, 255, (84, 84, 3), np.uint8)))  # fmt: skip
    games.reset()
    observations = games.step(np.zeros(2, np.int64))[0]
    assert observations.shape == games.observation_space.shape
    games.close()


def written(folder, steps, resumed_steps=None):
    """Windows at those steps, in ``metrics.jsonl`` and in TensorBoard's files."""
    folder.mkdir(exist_ok=True)
    with MetricsWriter(folder, resumed_steps) as writer:
        for time_s, step in steps:
            rates = Meters(1, env_steps=step).rates()
            writer.write([rates | {"time_s": float(time_s), "pps": float(step)}])


def test_tensorboard_shows_no_step_of_a_killed_run_twice(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    written(tmp_path, [(4, 100), (8, 200), (12, 300), (16, 400)])
    written(tmp_path, [(9, 200), (12, 260), (16, 350)], resumed_steps=200)
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("rates/pps")] == [100, 200, 260, 350]


def test_the_report_shows_no_step_of_a_killed_run_twice(tmp_path):
    folder = agent(tmp_path / "run", "Sign")
    written(folder, [(4, 100), (8, 200), (9, 290), (12, 300)])
    written(folder, [(10, 210), (14, 350)])
    assert [line["env_steps"] for line in read_run(folder, "run").rates] == [100, 200, 210, 350]


NOT_UTF8 = "r\udcff"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "CartPole-v1", "--out", NOT_UTF8],
        ["train", "--resume", NOT_UTF8],
        ["train", NOT_UTF8],
        ["train", "--preset", NOT_UTF8],
        ["train", "--network", NOT_UTF8],
        ["eval", NOT_UTF8],
        ["play", "run", "--out", f"{NOT_UTF8}.gif"],
        ["export", "run", "--out", f"{NOT_UTF8}.onnx"],
        ["report", NOT_UTF8],
        ["compare", "--out", NOT_UTF8],
        ["tune", "--out", NOT_UTF8],
        ["networks", "--out", NOT_UTF8],
    ],
    ids=" ".join,
)
def test_a_name_that_is_not_utf8_is_answered_with_a_sentence(tmp_path, arguments):
    run = run_ga3c(*arguments, cwd=tmp_path)
    assert run.returncode == 2, run.err
    assert re.fullmatch(r"ga3c: got 'r\\udcff(\.\w+)?', whose bytes are not UTF-8; expected a name in UTF-8\n", run.err)
    assert run.out == ""
    assert not list(tmp_path.iterdir())


def test_a_program_that_gives_a_name_that_is_not_utf8_gets_a_usage_error():
    for call in (lambda: ga3c.train("CartPole-v1", out=NOT_UTF8), lambda: ga3c.load(NOT_UTF8)):
        with pytest.raises(UsageError, match="whose bytes are not UTF-8"):
            call()


def test_a_working_directory_that_is_not_utf8_is_no_hindrance(tmp_path):
    folder = tmp_path / NOT_UTF8
    folder.mkdir()
    run = run_ga3c("train", "CartPole-v1", *SIGN, cwd=folder)
    assert run.returncode == 0, run.err


DELETED = """
import os, sys
os.mkdir("gone")
os.chdir("gone")
os.rmdir("../gone")
"""


@pytest.mark.parametrize("command", ["train", "eval", "compare"])
def test_a_working_directory_that_was_deleted_is_said_in_a_sentence(tmp_path, command):
    code = f"{DELETED}\nsys.argv = ['ga3c', {command!r}, 'CartPole-v1']\nfrom ga3c.__main__ import main\nmain()"
    run = python(code, tmp_path)
    assert run.returncode == 2, run.stderr
    assert run.stderr == "ga3c: the working directory has been deleted; expected one that exists (cd to it first)\n"


def test_a_program_whose_working_directory_was_deleted_gets_a_usage_error(tmp_path):
    code = f"""{DELETED}
import ga3c
for call in (lambda: ga3c.train("CartPole-v1", total_steps=10), lambda: ga3c.make_vec("CartPole-v1")):
    try:
        call()
    except ga3c.UsageError as error:
        print(error)
"""
    run = python(code, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("the working directory has been deleted") == 2


def python(code, cwd, **options):
    """Runs a program in a process of its own, which finds the package."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        cwd=cwd, capture_output=True, text=True, timeout=100, check=False, **options,
    )  # fmt: skip


def test_the_report_normalises_the_score_of_an_atari_game_by_any_id(tmp_path):
    folder = agent(tmp_path / "run", "Sign")
    facts = {"protocol": "Gymnasium, frame skip 4", "game": "pong", "machine": {}, "versions": {}}
    (folder / "run.json").write_text(json.dumps(facts))
    assert read_run(folder, "run").normalised(14.6) == pytest.approx(1.0)
    assert atari_game("ale_py:MsPacmanNoFrameskip-v4") == atari_game("ALE/MsPacman-v5") == "ms_pacman"
