import dataclasses
import json
import os

import pytest

from ga3c import cuda
from ga3c.choices import computes_on_cpu
from ga3c.config import TrainConfig, config_from_json, read_config
from ga3c.envs import EnvConfig, env_spec
from ga3c.errors import UsageError
from ga3c.presets import MOST_DEVICE_THREADS, default_config, fit, validate
from ga3c.resolve import read_options

CARTPOLE = env_spec(EnvConfig("CartPole-v1"))
PONG = env_spec(EnvConfig("Pong-v5"))


@pytest.mark.parametrize("preset", ["fast", "paper"])
@pytest.mark.parametrize("spec", [CARTPOLE, PONG], ids=["vector", "image"])
@pytest.mark.parametrize("cuda", [False, True])
def test_defaults_are_valid(preset, spec, cuda):
    config = default_config("ga3c", preset, spec, cuda)
    validate(config, spec)
    assert config.preset == preset
    assert config.network == ("small" if spec is PONG else "mlp")


@pytest.mark.parametrize("cuda", [False, True])
def test_there_are_two_actors_a_core_wherever_the_model_is(cuda):
    assert default_config("ga3c", "fast", PONG, cuda).actors == 2 * len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("words", "dynamic"),
    [
        ([], "off"),
        (["--dynamic"], "climb"),
        (["--dynamic", "--actors", "2"], "climb"),
        (["--dynamic", "paper"], "paper"),
    ],
)
def test_no_word_at_all_is_a_run_and_dynamic_alone_is_a_climb(words, dynamic):
    assert read_options(words, "ga3c train").config.dynamic == dynamic


def test_the_paper_preset_is_the_released_code():
    config = default_config("ga3c", "paper", PONG, cuda=False)
    assert (config.actors, config.envs_per_actor, config.predictors, config.trainers) == (32, 1, 2, 2)
    assert (config.t_max, config.discount, config.gae_lambda, config.entropy_cost) == (5, 0.99, 1.0, 0.01)
    assert (config.optimiser, config.learning_rate, config.decay, config.epsilon) == ("rmsprop", 3e-4, 0.99, 0.1)
    assert (config.loss_reduction, config.log_floor, config.max_grad_norm) == ("sum", 1e-6, 0.0)
    assert (config.min_training_batch, config.max_prediction_batch, config.anneal) == (0, 128, False)


def test_a_configuration_survives_json(tmp_path):
    config = dataclasses.replace(TrainConfig(), out=tmp_path, total_steps=5, sticky_actions=0.25)
    assert config_from_json(json.loads(json.dumps(config.to_json()))) == config


def test_fields_of_another_version_are_left_out(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"env": "CartPole-v1", "of_the_future": 1}))
    assert read_config(tmp_path).env == "CartPole-v1"


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"env": 1'])
def test_a_damaged_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"actors": 0}, "--actors: got 0; 1 to 1024"),
        ({"envs_per_actor": -1}, "--envs-per-actor: got -1"),
        ({"t_max": 0}, "--t-max: got 0"),
        ({"segments": 1}, "--segments: got 1; 2 to 64"),
        ({"discount": 1.5}, "--discount: got 1.5; 0 to 1"),
        ({"learning_rate": -1e-3}, "--learning-rate"),
        ({"learning_rate": float("nan")}, "--learning-rate: got nan"),
        ({"minutes": 0.0}, "--minutes"),
        ({"total_steps": 0}, "--total-steps"),
        ({"frame_skip": 0}, "--frame-skip"),
        ({"sticky_actions": 1.5}, "--sticky-actions"),
        ({"learning_rate": float("inf")}, "--learning-rate: got inf"),
        ({"actors": 10**9}, "--actors: got 1000000000"),
        ({"seed": 2**64}, "--seed"),
        ({"decay": 1.0}, "--decay"),
        ({"max_prediction_batch": 10**12}, "--max-prediction-batch"),
        ({"min_training_batch": 100_000}, "have at most 640 samples waiting"),
        ({"device": "cuda", "predictors": 12, "trainers": 4}, "got 12 and 4, but a GPU works side by side for 15"),
        ({"device": "cuda:1", "trainers": 12, "dynamic": "climb"}, "got 4 and 12, but a GPU works side by side"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(changes, words):
    config = dataclasses.replace(TrainConfig(actors=4, envs_per_actor=8, t_max=20, segments=2), **changes)
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        validate(config, PONG)


def test_a_gpu_has_a_stream_for_each_thread_even_while_counts_change():
    assert 2 * MOST_DEVICE_THREADS + 1 <= cuda._STREAMS
    validate(TrainConfig(device="cuda", predictors=8, trainers=7, min_training_batch=80), PONG)
    validate(TrainConfig(device="cpu", predictors=64, trainers=64, min_training_batch=80), PONG)


def test_an_atari_option_for_what_is_no_atari_game_is_refused():
    with pytest.raises(UsageError, match="--frame-skip: only Atari games have it, and CartPole-v1 is none"):
        validate(TrainConfig(env="CartPole-v1", network="mlp", frame_skip=2), CARTPOLE)


def test_a_default_training_batch_fits_the_counts_that_the_user_chose():
    default = TrainConfig(min_training_batch=160)
    few = dataclasses.replace(default, actors=1, envs_per_actor=4, t_max=5, segments=2)
    assert fit(few, default).min_training_batch == 20
    asked = dataclasses.replace(few, min_training_batch=100)
    assert fit(asked, default) == asked  # what was asked for is refused, not changed
    with pytest.raises(UsageError, match="have at most 20 samples waiting"):
        validate(asked, PONG)


def test_the_cores_are_the_actors_own_where_another_device_computes(monkeypatch):
    monkeypatch.setattr("ga3c.choices.gpu_driver_is_there", lambda: False)
    devices = ("cpu", "auto", "cuda", "cuda:1", "simulated:null")
    assert [computes_on_cpu(device) for device in devices] == [True, True, False, False, False]
    monkeypatch.setattr("ga3c.choices.gpu_driver_is_there", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert not computes_on_cpu("auto")
