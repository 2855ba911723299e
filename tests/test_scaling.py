"""What observations are scaled by: bounds that can be meant, statistics of random play, and old checkpoints."""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

import ga3c
from ga3c.build import build_model, normalise
from ga3c.channels import MAX_MESSAGE_BYTES
from ga3c.checkpoint import Progress, snapshot, write_checkpoint
from ga3c.choices import check_states
from ga3c.config import TrainConfig
from ga3c.envs import Bounds, EnvConfig, EnvError, EnvSpec, env_spec, envs_in_one_process
from ga3c.envs.base import check_spaces, meant_bounds, state_dtype
from ga3c.errors import UsageError
from ga3c.export import export
from ga3c.networks import MLP, NETWORKS, build_network
from ga3c.optim import build_optimiser
from ga3c.pictures import Picture, is_picture, picture_in
from ga3c.policy import load_policy
from ga3c.watchdog import time_limit
from ga3c.worker import worker_settings
from tests import scaled_envs

PICTURE = (1, 84, 84)
OLD_RUN = Path(__file__).parent / "old_runs" / "board"  # by 0.1.0 at cd879f3, whose networks divided bytes by 255
TINY = {"total_steps": 400, "quiet": True, "device": "cpu"}


def spec_of(space):
    observations, actions = check_spaces("Some-v0", space, Discrete(2))
    return EnvSpec(
        "Some-v0", "gymnasium", observations.shape, state_dtype(space), actions, 1, None, "none", meant_bounds(space)
    )


def made(space, network):
    """The network that a run would begin with, before it has seen any play."""
    config = TrainConfig(network=network, device="cpu", precision="fp32")
    return build_model(config, spec_of(space))[0].network


def first_inputs(space, network, states):
    """What the network's first layer is given, less its own weights: [B, ...]."""
    built = made(space, network)
    values = built._values(torch.from_numpy(states))
    return ((values - built.mean) * built.scale).numpy() if built.scales(torch.from_numpy(states).dtype) else values


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(-np.inf, np.inf, np.float32), (0.0, np.inf, np.float32), (-1.8e308, 1.8e308, np.float64),
     (-3.4e38, 3.4e38, np.float32), (1.2e-38, 3.4e38, np.float32), (1.2e-38, 1.0, np.float32),
     (2.2e-308, 1.8e308, np.float64), (-(2**31), 2**31 - 1, np.int32), (-(2**63), 2**63 - 1, np.int64)],
)  # fmt: skip
def test_bounds_that_nobody_can_mean_count_as_none(low, high, dtype):
    assert meant_bounds(Box(low, high, PICTURE, dtype)) is None
    assert float(made(Box(low, high, PICTURE, dtype), "small").scale) == 1
    states = np.linspace(0, 1, 84 * 84, dtype=np.float32).reshape(1, *PICTURE)
    np.testing.assert_array_equal(first_inputs(Box(low, high, PICTURE, dtype), "small", states), states)


def test_envpools_own_absurd_bounds_count_as_none():
    assert env_spec(EnvConfig("AnimalShogi-v1")).bounds is None
    assert env_spec(EnvConfig("CartPole-v1")).bounds is None
    low, high = env_spec(EnvConfig("Pong-v5")).bounds
    assert (low.dtype, low.max(), high.min()) == (np.uint8, 0, 255)


@pytest.mark.parametrize("network", ["small", "mlp"])
@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 1, np.uint8), (5, 10, np.uint8), (0, 255, np.uint8), (0.0, 1.0, np.float32), (-1.0, 1.0, np.float32),
     (0.0, 255.0, np.float64), (0, 255, np.int64), (0, 65535, np.uint16)],
)  # fmt: skip
def test_pictures_of_every_type_come_to_0_to_1(network, low, high, dtype):
    space = Box(low, high, PICTURE, dtype)
    states = np.full((2, *PICTURE), low, state_dtype(space))
    states[1] = high
    inputs = first_inputs(space, network, states)
    np.testing.assert_allclose(inputs[0], 0, atol=1e-6)
    np.testing.assert_allclose(inputs[1], 1, rtol=1e-6)


def test_each_byte_of_a_vector_is_scaled_by_its_own_bounds():
    space = Box(np.array([0, 5, 0, 7]), np.array([1, 10, 255, 7]), dtype=np.uint8)
    inputs = first_inputs(space, "mlp", np.array([[0, 5, 0, 7], [1, 10, 255, 7], [1, 6, 51, 7]], np.uint8))
    np.testing.assert_allclose(inputs, [[0, 0, 0, 0], [1, 1, 1, 0], [1, 0.2, 0.2, 0]], atol=1e-6)


@pytest.mark.parametrize(
    "space", [Box(-2.0, 5.0, (4,), np.float32), Box(0, 31, (3,), np.int64), Box(0.0, 1.0, (7, 7, 3), np.float32)]
)
def test_vectors_of_floats_and_large_integers_stay_as_they_are(space):
    space.seed(1)
    states = np.stack([space.sample() for _ in range(5)]).astype(np.float32)
    np.testing.assert_array_equal(first_inputs(space, "mlp", states), states.reshape(5, -1))


def test_bytes_of_0_to_255_are_scaled_as_they_ever_were():
    assert torch.equal(made(Box(0, 255, (4, 84, 84), np.uint8), "small").scale, torch.tensor(1 / 255.0))
    states = np.arange(256, dtype=np.uint8).reshape(2, 128)
    inputs = first_inputs(Box(0, 255, (128,), np.uint8), "mlp", states)
    np.testing.assert_array_equal(inputs, (torch.from_numpy(states).float() / 255).numpy())


def test_a_users_network_of_the_packages_parts_is_scaled_too(tmp_path, monkeypatch):
    (tmp_path / "my_scaled.py").write_text(
        "from ga3c.networks import MLP\ndef net(shape, actions):\n    return MLP(shape, actions, width=8)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    board = np.eye(8, dtype=np.uint8)[:2]
    np.testing.assert_allclose(first_inputs(Box(0, 1, (8,), np.uint8), "my_scaled:net", board), board, rtol=1e-6)


# Statistics of random play.


def after_play(env, **options):
    """The network of a run after its random play, and what was said."""
    config = TrainConfig(env=env, device="cpu", precision="fp32", **options)
    spec = env_spec(config.env_config())
    config = dataclasses.replace(config, network="small" if spec.is_image else "mlp")
    network = build_model(config, spec)[0].network
    return network, normalise(network, config, spec)


@pytest.mark.parametrize("env", ["tests.scaled_envs:Grid-v0", "tests.scaled_envs:BoardOf255-v0"])
def test_bytes_that_use_a_small_part_of_their_bounds_are_scaled_by_statistics(env):
    network, said = after_play(env)
    assert said is None
    bytes_a_unit = 255 / network.scale
    assert float(bytes_a_unit.min()) > 0.9
    assert float(bytes_a_unit.max()) < 10
    assert network.mean.max() > 0


def test_bytes_that_use_their_bounds_are_scaled_by_them_alone():
    network, said = after_play("tests.case_envs:Board-v0")
    assert said is None
    assert not network.mean.any()
    np.testing.assert_allclose(network.scale, 255, rtol=1e-6)


def test_flags_beside_a_counter_are_scaled_by_their_own_deviation():
    network = made(Box(0, 255, (4,), np.uint8), "mlp")
    draw = np.random.default_rng(1)
    states = np.zeros((400, 4), np.uint8)
    states[:, 0], states[:, 1], states[:, 2] = draw.integers(0, 2, 400), draw.integers(0, 256, 400), states[:, 2] + 7
    assert network.normalise(torch.from_numpy(states))
    bytes_a_unit = (255 / network.scale).numpy()
    np.testing.assert_allclose(bytes_a_unit[[0, 1, 2, 3]], [1, 255, 255, 255], rtol=1e-5)
    assert 255 * float(network.mean[0]) == pytest.approx(0.5, abs=0.1)


def test_random_play_goes_on_while_nothing_moves():
    network, said = after_play("tests.case_envs:Intro-v0")
    assert said is None
    assert 10 < 1 / float(network.scale) < 60


def test_random_play_in_which_nothing_ever_moves_is_said_and_changes_nothing():
    network, said = after_play("tests.scaled_envs:ForEverBlack-v0")
    assert said.startswith("16,000 steps of random play looked all alike")
    assert torch.equal(network.scale, torch.tensor(1 / 255.0))
    assert not network.mean.any()


def test_the_run_says_so_among_its_first_lines(tmp_path, capsys):
    ga3c.train("tests.scaled_envs:ForEverBlack-v0", out=tmp_path / "run", **TINY | {"quiet": False})
    assert "random play looked all alike: observations are scaled by their bounds" in capsys.readouterr().out


@pytest.mark.parametrize("flickering", [0, 3, 300])
def test_a_faint_deviation_never_multiplies_by_more_than_a_byte_is_worth(flickering):
    network = build_network("small", PICTURE, 2, "orthogonal")
    states = torch.zeros((100, *PICTURE), dtype=torch.uint8)
    states[::2, 0, 0, :flickering] = 1
    states[::2, 0, 1, : max(0, flickering - 84)] = 1
    assert network.normalise(states) is (flickering > 0)
    assert float(network.scale) <= 1.0001


@pytest.mark.parametrize("envs_per_actor", [1, 3, 16])
def test_random_play_makes_no_more_environments_than_an_actor_would(envs_per_actor):
    scaled_envs.Counted.most = 0
    after_play("tests.scaled_envs:Counted-v0", envs_per_actor=envs_per_actor)
    assert scaled_envs.Counted.most == min(4, envs_per_actor)
    assert scaled_envs.Counted.opened == 0


def test_envpools_environments_share_a_process_whatever_an_actor_has():
    assert envs_in_one_process(EnvConfig("Pong-v5"), 4, envs_per_actor=1) == 4
    assert envs_in_one_process(EnvConfig("tests.case_envs:Single-v0"), 4, envs_per_actor=1) == 1


def test_environments_of_random_play_are_closed_when_one_fails(monkeypatch):
    monkeypatch.setattr(scaled_envs.Counted, "fails", True)
    monkeypatch.setattr(scaled_envs.Counted, "taken", 0)
    with pytest.raises(EnvError, match="the emulator is on fire"):
        after_play("tests.scaled_envs:Counted-v0")
    assert scaled_envs.Counted.opened == 0


@pytest.mark.parametrize("mode", ["ga3c", "a3c"])
def test_an_emulator_that_allows_one_instance_a_process_trains_and_is_exported(tmp_path, mode):
    one_each = {"envs_per_actor": 1} if mode == "ga3c" else {}
    run = ga3c.train("tests.case_envs:Single-v0", out=tmp_path / "run", mode=mode, actors=2, **one_each, **TINY)
    assert run.env_steps >= 400
    assert export(run.folder, format="torch").difference < 1e-4


def test_a_terminal_is_told_what_takes_long():
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal, contextlib.redirect_stderr(terminal):
        with time_limit(60, "random play of Slow-v0", quiet=False):
            time.sleep(4.5)
        told = os.read(ours, 1000).decode()
    os.close(ours)
    assert told.strip() == "ga3c: random play of Slow-v0 goes on; it may take 60 s"


# Shapes.


@pytest.mark.parametrize(
    ("shape", "picture"),
    [((4, 84, 84), (4, 84, 84, False)), ((84, 84, 20), (20, 84, 84, True)), ((64, 64, 12), (12, 64, 64, True)),
     ((210, 160, 3), (3, 210, 160, True)), ((72, 96, 4), (4, 72, 96, True)), ((84, 84, 84), (84, 84, 84, False)),
     ((84, 84), (1, 84, 84, False)), ((12, 84, 84), (12, 84, 84, False))],
)  # fmt: skip
def test_the_smaller_of_first_and_last_dimension_counts_the_channels(shape, picture):
    assert picture_in(shape) == Picture(*picture)
    assert is_picture(shape)
    network = build_network("small", shape, 2, "orthogonal")
    assert network.convs[0].in_channels == picture[0]
    for dtype in (torch.uint8, torch.float32):
        for count in (3, 24):
            states = torch.zeros((count, *shape), dtype=dtype)
            logits, values = network(states)
            assert (logits.shape, values.shape) == ((count, 2), (count,))
    (values.sum() + logits.sum()).backward()


@pytest.mark.parametrize("shape", [(4,), (10, 5), (7, 7, 3), (4, 3, 194), (2, 3, 4, 5)])
def test_what_is_no_picture_is_given_to_the_mlp(shape):
    assert not is_picture(shape)
    check_states("mlp", shape)
    logits, _ = build_network("mlp", shape, 2, "orthogonal")(torch.zeros(3, *shape))
    assert logits.shape == (3, 2)


@pytest.mark.parametrize("network", list(NETWORKS))
def test_several_pictures_in_one_observation_are_refused_in_a_sentence(network):
    with pytest.raises(
        UsageError, match=r"got states \[4, 84, 84, 3\]; expected a vector, or one picture: .*module:call"
    ):
        check_states(network, (4, 84, 84, 3))
    check_states("my_networks:net", (4, 84, 84, 3))


def test_a_grey_picture_without_channels_learns_and_plays_in_every_mode(tmp_path):
    for mode in ("ga3c", "a3c", "a2c"):
        run = ga3c.train("tests.scaled_envs:Counted-v0", out=tmp_path / mode, mode=mode, **TINY)
        policy = ga3c.load(run.folder, device="cpu")
        assert policy.config.network == "small"
        assert policy.act(np.zeros((2, 40, 40), np.uint8)).shape == (2,)
    assert export(tmp_path / "a2c").difference < 1e-4


# What was trained before.


def test_an_old_run_of_bytes_judges_as_it_did():
    boards = np.zeros((3, 8), np.uint8)
    boards[0, 0] = boards[1, 1] = 1
    boards[2] = 200
    judgement = load_policy(OLD_RUN, device="cpu").judge(boards)
    # What version 0.1.0 at cd879f3 computed from this file.
    np.testing.assert_allclose(judgement.probabilities[:, 0], [0.50027376, 0.50026602, 0.49882478], rtol=1e-6)
    np.testing.assert_allclose(judgement.values, [0.15034109, 0.15083938, 0.32264933], rtol=1e-6)


@pytest.mark.parametrize("mode", ["a2c", "a3c"])
def test_an_old_run_of_bytes_goes_on_as_it_was(tmp_path, mode):
    folder = tmp_path / "run"
    shutil.copytree(OLD_RUN, folder)
    ga3c.train(resume=folder, mode=mode, total_steps=3000, quiet=True)
    network = load_policy(folder, device="cpu").network
    assert torch.equal(network.scale, torch.ones(8))
    assert not network.mean.any()


def test_an_old_checkpoint_inside_a_users_network_is_read():
    old = {name: tensor for name, tensor in MLP((8,), 2).state_dict().items() if name not in ("mean", "scale")}
    users = torch.nn.ModuleDict({"body": MLP((8,), 2)})
    users["body"].scale_by(torch.zeros(8, dtype=torch.uint8), torch.ones(8, dtype=torch.uint8))
    users.load_state_dict({f"body.{name}": tensor for name, tensor in old.items()})
    states = torch.randint(0, 256, (5, 8), dtype=torch.uint8)
    plain = MLP((8,), 2)
    plain.load_state_dict(old)
    assert torch.equal(users["body"](states)[0], plain(states.float() / 255)[0])


@pytest.fixture
def old_planes(tmp_path):
    """A run whose pictures (84, 84, 20) were read as 84 channels, and its network."""
    torch.manual_seed(5)
    network = build_network("small", (84, 84, 20), 2, "uniform", channels_last=False)
    assert network.convs[0].in_channels == 84
    optimiser = build_optimiser("adam", network.parameters(), 1e-4, 0.99, 1e-5)
    config = TrainConfig(env="tests.case_envs:Planes-v0", device="cpu", precision="fp32", total_steps=100, actors=1)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    write_checkpoint(folder, config, Progress(100, 3, 1.5), snapshot(network, optimiser), keep=3)
    return folder, network


def test_an_old_run_of_many_channels_last_plays_as_it_did(old_planes):
    folder, network = old_planes
    states = np.random.default_rng(1).integers(0, 256, (3, 84, 84, 20), np.uint8)
    with torch.no_grad():
        logits, values = network(torch.from_numpy(states))
    judgement = load_policy(folder, device="cpu").judge(states)
    np.testing.assert_allclose(judgement.probabilities, torch.softmax(logits, 1), rtol=1e-4)
    np.testing.assert_allclose(judgement.values, values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", ["ga3c", "a3c"])
def test_an_old_run_of_many_channels_last_goes_on(old_planes, mode):
    folder, _ = old_planes
    run = ga3c.train(resume=folder, mode=mode, total_steps=150, quiet=True)
    assert run.env_steps >= 150
    assert load_policy(folder, device="cpu").network.convs[0].in_channels == 84


def test_what_a_worker_is_told_is_small_however_large_the_bounds_are():
    low = np.zeros(60_000, np.uint8)
    spec = EnvSpec("X", "gymnasium", (60_000,), "uint8", 2, 1, None, "none", Bounds(low, low + 200))
    settings = worker_settings(TrainConfig(), spec, devices=["cpu"], precision="fp32", resumed_steps=0)
    assert len(json.dumps(settings)) < MAX_MESSAGE_BYTES / 10
