"""Exported policies: what the files hold, against the network, on real frames, and without this package."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from ga3c import export as exporting
from ga3c.checkpoint import Progress, snapshot, write_checkpoint
from ga3c.cli import run
from ga3c.config import TrainConfig
from ga3c.envs import make_env, random_states
from ga3c.errors import UsageError
from ga3c.export import export
from ga3c.networks import build_network
from ga3c.optim import build_optimiser
from ga3c.policy import load_policy
from tests.running import ROOT, finish

BATCHES = (1, 2, 11, 12, 13, 40)  # the package's networks do the same in two ways, from 12 states on in another


def checkpoint(folder, network, env="CartPole-v1", name="mlp"):
    """A run's folder with the network's weights."""
    folder.mkdir()
    optimiser = build_optimiser("adam", network.parameters(), 1e-2, 0.99, 1e-5)
    config = TrainConfig(env=env, network=name, device="cpu")
    write_checkpoint(folder, config, Progress(100, 3, 1.5), snapshot(network, optimiser), keep=3)
    return folder


@pytest.fixture(scope="module")
def pong(tmp_path_factory):
    """A run of Pong, of random weights that are no near ties, and frames of the game."""
    torch.manual_seed(0)
    env = make_env(TrainConfig().env_config(), list(range(4)))
    frames = random_states(env, 6, seed=3, steps=160)
    env.close()
    network = build_network("small", (4, 84, 84), 6, "uniform")
    network.normalise(torch.from_numpy(frames))
    return checkpoint(tmp_path_factory.mktemp("pong") / "run", network, "Pong-v5", "small"), frames


@pytest.fixture(scope="module")
def exported(pong):
    """What is written beside the checkpoint, by format."""
    return {"onnx": export(pong[0]), "torch": export(str(pong[0]), format="torch")}


def test_onnxruntime_computes_what_the_policy_does_for_any_batch_of_frames(pong, exported):
    folder, frames = pong
    assert exported["onnx"].path == folder / "policy.onnx"
    assert exported["onnx"].difference < 1e-5
    session = onnxruntime.InferenceSession(exported["onnx"].path)
    policy = load_policy(folder, device="cpu")
    for size in BATCHES:
        ours, theirs = policy.judge(frames[-size:]), session.run(None, {"observations": frames[-size:]})
        np.testing.assert_allclose(theirs[0], ours.probabilities, atol=1e-5)
        np.testing.assert_allclose(theirs[1], ours.values, atol=1e-5)
    assert np.ptp(ours.probabilities, axis=0).max() > 1e-3  # the frames matter
    about = session.get_modelmeta().custom_metadata_map
    assert (about["env"], about["actions"], about["env_steps"]) == ("Pong-v5", "6", "100")
    assert "frame skip 4" in about["protocol"]


def test_torch_computes_what_the_policy_does_for_any_batch_of_frames(pong, exported):
    folder, frames = pong
    assert exported["torch"].path == folder / "policy.pt2"
    assert exported["torch"].difference < 1e-5
    about = {"policy.json": ""}
    module = torch.export.load(exported["torch"].path, extra_files=about).module()
    policy = load_policy(folder, device="cpu")
    for size in BATCHES:
        ours, theirs = policy.judge(frames[-size:]), module(torch.from_numpy(frames[-size:]))
        np.testing.assert_allclose(theirs[0].detach(), ours.probabilities, atol=1e-5)
        np.testing.assert_allclose(theirs[1].detach(), ours.values, atol=1e-5)
    assert json.loads(about["policy.json"])["env"] == "Pong-v5"


def test_the_programs_on_the_page_play_a_game_without_this_package(tmp_path, exported):
    (tmp_path / "pong.onnx").symlink_to(exported["onnx"].path)
    (tmp_path / "pong.pt2").symlink_to(exported["torch"].path)
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    assert len(programs) == 2
    check = "\nimport sys\nassert 'ga3c' not in sys.modules\n"
    playing = [
        subprocess.Popen(
            [sys.executable, "-c", program + check],
            cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for program in programs
    ]  # fmt: skip
    for process in playing:
        finish(process)
        assert process.returncode == 0, process.err
        assert -21 <= float(re.fullmatch(r"score (\S+)\n", process.out)[1]) <= 21


def test_a_network_of_the_users_own_is_exported(tmp_path, monkeypatch, capsys):
    (tmp_path / "wide_network.py").write_text(
        "from torch import nn\n"
        "class Wide(nn.Module):\n"
        "    def __init__(self, shape, actions):\n"
        "        super().__init__()\n"
        "        self.body = nn.Sequential(nn.Linear(shape[0], 32), nn.ReLU(), nn.LayerNorm(32))\n"
        "        self.heads = nn.Linear(32, actions + 1)\n"
        "    def forward(self, states):\n"
        "        both = self.heads(self.body(states))\n"
        "        return both[:, 1:], both[:, 0]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "wide_network:Wide"
    folder = checkpoint(tmp_path / "run", build_network(name, (4,), 2, "orthogonal"), name=name)
    file = tmp_path / "wide.onnx"
    assert run(["export", str(folder), "--out", str(file)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(f"{file}: the policy of {folder}")
    states = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    probabilities, _ = onnxruntime.InferenceSession(file).run(None, {"observations": states})
    np.testing.assert_allclose(probabilities, load_policy(folder, device="cpu").judge(states).probabilities, atol=1e-5)


def test_a_network_that_the_exporter_does_not_understand_is_refused_in_a_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "branching_network.py").write_text(
        "from torch import nn\n"
        "class Branching(nn.Linear):\n"
        "    def __init__(self, shape, actions):\n"
        "        super().__init__(shape[0], actions)\n"
        "    def forward(self, states):\n"
        "        x = super().forward(states)\n"
        "        return (x, x[:, 0]) if float(x.sum()) > 0 else (-x, x[:, 1])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "branching_network:Branching"
    folder = checkpoint(tmp_path / "run", build_network(name, (4,), 2, "orthogonal"), name=name)
    before = sorted((tmp_path / "run").iterdir())
    assert run(["export", str(folder), "--format", "torch"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ga3c: network 'branching_network:Branching' cannot be exported as torch: ")
    assert len(said.strip().splitlines()) == 1, said
    assert sorted((tmp_path / "run").iterdir()) == before


def test_a_file_with_other_outputs_than_the_networks_is_not_written(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path / "run", build_network("mlp", (4,), 2, "uniform"))
    right = exporting._to_torch

    def wrong(program, about):
        content, judge = right(program, about)
        return content, lambda states: judge(states)._replace(values=judge(states).values + 0.01)

    monkeypatch.setattr(exporting, "_to_torch", wrong)
    with pytest.raises(UsageError, match=r"they differ by 0\.01, and 0\.001 would be right; nothing was written"):
        export(folder, format="torch")
    assert not list(folder.glob("policy*"))


def test_without_the_extra_a_sentence_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UsageError, match=r"ONNX needs onnxscript; pip install 'ga3c\[export\]' would be right"):
        export(tmp_path)


@pytest.mark.parametrize("out", ["", "nowhere/policy.pt2"])
def test_a_place_that_cannot_be_written_to_is_refused_first(tmp_path, out):
    folder = checkpoint(tmp_path / "run", build_network("mlp", (4,), 2, "uniform"))
    with pytest.raises(UsageError, match="cannot be written to; a file in a folder that exists would be right"):
        export(folder, format="torch", out=tmp_path / out)
