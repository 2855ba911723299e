import dataclasses
import os
from pathlib import Path

import pytest
import torch

from ga3c.checkpoint import (
    Progress,
    load_network,
    load_optimiser,
    named_tensors,
    read_checkpoint,
    read_newest,
    snapshot,
    write_checkpoint,
)
from ga3c.config import TrainConfig
from ga3c.device import place
from ga3c.errors import UsageError
from ga3c.folder import find_checkpoint, list_checkpoints
from ga3c.metrics_writer import MetricsWriter
from ga3c.networks import build_network
from ga3c.optim import build_optimiser

SHAPES = {"mlp": (4,), "small": (4, 84, 84)}


def trained(name="adam", seed=0, kind="mlp"):
    torch.manual_seed(seed)
    network = place(build_network(kind, SHAPES[kind], 2, "orthogonal"), torch.device("cpu"))
    optimiser = build_optimiser(name, network.parameters(), 1e-2, 0.99, 1e-5)
    for _ in range(3):
        optimiser.zero_grad()
        sum(out.sum() for out in network(torch.rand(8, *SHAPES[kind]))).backward()
        optimiser.step()
    return network, optimiser


def write(folder, network, optimiser, steps=100, keep=3, score=None):
    config = TrainConfig(env="CartPole-v1")
    return write_checkpoint(
        folder, config, Progress(steps, 3, 1.5, score, (7.0, 9.5)), snapshot(network, optimiser), keep
    )


@pytest.mark.parametrize("kind", ["mlp", "small"])
@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path, name, kind):
    network, optimiser = trained(name, kind=kind)
    path = write(tmp_path, network, optimiser)
    other, other_optimiser = trained(name, seed=9, kind=kind)
    layouts = {key: tensor.stride() for key, tensor in named_tensors(other, other_optimiser).items()}
    checkpoint = read_checkpoint(path)
    load_network(checkpoint, other, path)
    load_optimiser(checkpoint, other_optimiser, path)
    # Fused kernels pair elements by their place in memory: channels-last weights with statistics that are not would do
    # wrong without a word.
    assert {key: tensor.stride() for key, tensor in named_tensors(other, other_optimiser).items()} == layouts
    for _ in range(3):
        states = torch.rand(8, *SHAPES[kind])
        for n, o in ((network, optimiser), (other, other_optimiser)):
            o.zero_grad()
            sum(out.sum() for out in n(states)).backward()
            o.step()
    theirs = named_tensors(other, other_optimiser)
    for key, tensor in named_tensors(network, optimiser).items():
        torch.testing.assert_close(tensor, theirs[key], rtol=0, atol=0)


def test_counts_and_configuration_come_back(tmp_path):
    checkpoint = read_checkpoint(write(tmp_path, *trained(), steps=123))
    assert checkpoint.progress == Progress(123, 3, 1.5, None, (7.0, 9.5))
    assert checkpoint.config == dataclasses.replace(TrainConfig(), env="CartPole-v1")


def test_the_newest_are_kept_and_the_newest_is_found(tmp_path):
    for steps in (5, 100, 20, 3000):
        write(tmp_path, *trained(), steps=steps, keep=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == [
        "checkpoint-000000000100.safetensors",
        "checkpoint-000000003000.safetensors",
    ]
    assert find_checkpoint(tmp_path) == list_checkpoints(tmp_path)[-1]


def test_a_write_that_fails_leaves_the_older_ones_and_no_half_file(tmp_path, monkeypatch):
    old = write(tmp_path, *trained(), steps=1)
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, *trained(), steps=2)
    assert list(tmp_path.iterdir()) == [old]
    read_checkpoint(old)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * len(b)])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = write(tmp_path, *trained())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match=f"{path.name} cannot be read"):
        read_checkpoint(path)


def test_another_networks_weights_are_refused(tmp_path):
    path = write(tmp_path, *trained())
    with pytest.raises(UsageError, match="weights of another network"):
        load_network(read_checkpoint(path), build_network("mlp", (5,), 2, "orthogonal"), path)


def test_statistics_of_another_optimiser_are_left_out(tmp_path):
    path = write(tmp_path, *trained("rmsprop"))
    checkpoint = read_checkpoint(path)
    _, adam = trained("adam")
    before = [v["exp_avg"].clone() for v in adam.state_dict()["state"].values()]
    load_optimiser(checkpoint, adam, path)
    after = [v["exp_avg"] for v in adam.state_dict()["state"].values()]
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "damage",
    [
        lambda o: o | {"0-step": o.pop("0.step")},
        lambda o: o | {"x.step": o.pop("0.step")},
        lambda o: o | {"0.exp_avg": torch.zeros(3)},
        lambda o: {key: tensor for key, tensor in o.items() if key != "1.exp_avg"},
    ],
)
def test_statistics_that_do_not_fit_are_refused_by_name(tmp_path, damage):
    path = write(tmp_path, *trained())
    checkpoint = read_checkpoint(path)
    damaged = dataclasses.replace(checkpoint, optimiser=damage(dict(checkpoint.optimiser)))
    with pytest.raises(UsageError, match=f"{path.name} holds the optimiser's statistics of another network"):
        load_optimiser(damaged, trained()[1], path)


def test_a_folder_that_cannot_be_written_to_keeps_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("run")
    folder.mkdir()
    old = write(folder, *trained(), steps=1)
    tmp_path.chmod(0o755)
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nobody: root may write anywhere
    try:
        with pytest.raises(PermissionError):
            write(folder, *trained(), steps=2)
        with pytest.raises(PermissionError):
            MetricsWriter(folder)
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
    assert list(folder.iterdir()) == [old]
    read_checkpoint(old)


def test_a_folder_without_a_checkpoint_is_said(tmp_path):
    with pytest.raises(UsageError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        find_checkpoint(tmp_path / "nowhere")


def test_the_best_by_score_is_kept_beside_the_newest(tmp_path):
    for steps, score in enumerate([1.0, 9.0, None, 3.0, 2.0, 9.0, 4.0, 1.0]):
        write(tmp_path, *trained(), steps=steps, keep=2, score=score)
    kept = [read_checkpoint(path).progress for path in list_checkpoints(tmp_path)]
    assert [(p.env_steps, p.score) for p in kept] == [(5, 9.0), (6, 4.0), (7, 1.0)]


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    half = tmp_path / "checkpoint-000000000003.partial"
    half.write_bytes(b"half")
    write(tmp_path, *trained(), steps=5)
    assert not half.exists()


def test_the_newest_that_is_whole_is_read_and_the_others_are_named(tmp_path):
    for steps in (1, 2, 3):
        write(tmp_path, *trained(), steps=steps, keep=5)
    newest, middle, oldest = list_checkpoints(tmp_path)[::-1]
    newest.write_bytes(newest.read_bytes()[:99])
    used, errors = read_newest(tmp_path, lambda checkpoint, path: (path, checkpoint.progress.env_steps))
    assert used == (middle, 2)
    assert len(errors) == 1
    assert errors[0].startswith(f"{newest} cannot be read as a checkpoint")
    for damaged in (middle, oldest):
        damaged.write_bytes(b"")
    with pytest.raises(UsageError, match=newest.name):
        read_newest(tmp_path, lambda *_: None)
