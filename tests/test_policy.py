import dataclasses

import numpy as np
import pytest
import torch

from ga3c.checkpoint import Progress, snapshot, write_checkpoint
from ga3c.config import TrainConfig
from ga3c.errors import UsageError
from ga3c.networks import build_network
from ga3c.optim import build_optimiser
from ga3c.policy import load_policy


@pytest.fixture
def run(tmp_path):
    """A run's folder with two checkpoints of CartPole, and the network of the newest."""
    folder = tmp_path / "run"
    folder.mkdir()
    for steps in (100, 200):
        torch.manual_seed(steps)
        network = build_network("mlp", (4,), 2, "uniform")
        optimiser = build_optimiser("adam", network.parameters(), 1e-2, 0.99, 1e-5)
        config = TrainConfig(env="CartPole-v1", network="mlp", device="cpu")
        write_checkpoint(folder, config, Progress(steps, 3, 1.5), snapshot(network, optimiser), keep=3)
    return folder, network


def test_a_policy_judges_as_the_network_of_the_newest_checkpoint(run):
    folder, network = run
    policy = load_policy(folder, device="cpu")
    assert policy.env_steps == 200
    states = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    logits, values = network(torch.from_numpy(states))
    judgement = policy.judge(states)
    np.testing.assert_allclose(judgement.probabilities, torch.softmax(logits, 1).detach(), rtol=1e-5)
    np.testing.assert_allclose(judgement.values, values.detach(), rtol=1e-5)
    np.testing.assert_array_equal(policy.act(states, greedy=True), logits.argmax(1))


def test_actions_are_drawn_as_often_as_the_policy_says_and_alike_with_the_same_seed(run):
    policy = load_policy(run[0], device="cpu", seed=3)
    states = np.repeat(np.float32([[0.1, -1.0, 2.0, 0.5]]), 20_000, axis=0)
    probability = float(policy.judge(states[:1]).probabilities[0, 1])
    actions = policy.act(states)
    assert 0.02 < probability < 0.98
    assert actions.mean() == pytest.approx(
        probability, abs=5 * float(np.sqrt(probability * (1 - probability) / 20_000))
    )
    np.testing.assert_array_equal(actions, load_policy(run[0], device="cpu", seed=3).act(states))
    assert (actions != load_policy(run[0], device="cpu", seed=4).act(states)).any()


def test_a_single_observation_gets_a_single_action(run):
    policy = load_policy(run[0], device="cpu")
    action = policy.act(np.zeros(4), greedy=True)
    assert action.shape == ()
    assert action == policy.act(np.zeros((1, 4)), greedy=True)[0]


@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (2, 2, 4)])
def test_what_is_no_observation_is_refused_in_a_sentence(run, shape):
    with pytest.raises(UsageError, match=r"got observations .* \[B, 4\] would be right"):
        load_policy(run[0], device="cpu").act(np.zeros(shape))


def test_weights_of_another_network_are_refused_with_the_files_name(run, tmp_path):
    _, network = run
    config = dataclasses.replace(TrainConfig(), env="Acrobot-v1", network="mlp")
    optimiser = build_optimiser("adam", network.parameters(), 1e-2, 0.99, 1e-5)
    path = write_checkpoint(tmp_path, config, Progress(300, 3, 1.5), snapshot(network, optimiser), keep=3)
    with pytest.raises(UsageError, match=r"checkpoint-000000000300.safetensors holds the weights of another network"):
        load_policy(path, device="cpu")


def test_a_policy_never_plays_an_action_that_its_network_rules_out(run, tmp_path, monkeypatch):
    (tmp_path / "masking.py").write_text(
        "import torch\nfrom ga3c.networks import MLP\nclass Net(MLP):\n    def forward(self, states):\n"
        "        logits, values = super().forward(states)\n"
        "        return torch.cat((logits[:, :1], torch.full_like(logits[:, 1:], -torch.inf)), 1), values\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = build_network("masking:Net", (4,), 2, "orthogonal")
    optimiser = build_optimiser("adam", network.parameters(), 1e-2, 0.99, 1e-5)
    config = TrainConfig(env="CartPole-v1", network="masking:Net", device="cpu")
    path = write_checkpoint(tmp_path, config, Progress(300, 3, 1.5), snapshot(network, optimiser), keep=3)
    policy = load_policy(path, device="cpu")
    states = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    np.testing.assert_array_equal(policy.judge(states).probabilities, [[1, 0]] * 200)
    for greedy in (True, False):
        assert not policy.act(states, greedy=greedy).any()
