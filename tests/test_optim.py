import subprocess
import sys

import numpy as np
import pytest
import torch

from ga3c.optim import Adam, RMSProp, build_optimiser, set_learning_rate


def test_rmsprop_has_epsilon_inside_the_root():
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimiser = RMSProp([parameter], lr=0.5, decay=0.9, epsilon=0.1)
    theta, square = np.array([1.0, -2.0]), np.zeros(2)
    for gradient in ([0.3, 0.0], [-0.2, 4.0], [0.0, 1.0]):
        parameter.grad = torch.tensor(gradient)
        optimiser.step()
        g = np.array(gradient)
        square = 0.9 * square + 0.1 * g**2
        theta = theta - 0.5 * g / np.sqrt(square + 0.1)
        np.testing.assert_allclose(parameter.detach().numpy(), theta, rtol=1e-6)


def test_torchs_rmsprop_is_another_algorithm():
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0])) for _ in range(2))
    optimisers = [RMSProp([ours], 0.1, 0.99, 0.1), torch.optim.RMSprop([theirs], 0.1, 0.99, 0.1)]
    for parameter, optimiser in zip((ours, theirs), optimisers, strict=True):
        parameter.grad = torch.tensor([0.01])
        optimiser.step()
    assert abs(ours.item() - theirs.item()) > 1e-3


def test_a_parameter_without_a_gradient_is_left_alone():
    moved, still = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimiser = RMSProp([moved, still], 0.1, 0.99, 0.1)
    moved.grad = torch.ones(1)
    optimiser.step()
    assert still.item() == 1.0
    assert moved.item() != 1.0


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_the_learning_rate_of_the_next_step_can_be_set(name):
    parameter = torch.nn.Parameter(torch.ones(1))
    optimiser = build_optimiser(name, [parameter], 0.1, 0.99, 1e-5)
    set_learning_rate(optimiser, 0.0)
    parameter.grad = torch.ones(1)
    optimiser.step()
    assert parameter.item() == 1.0


def test_adam_is_torchs_bit_for_bit():
    torch.manual_seed(3)
    start = torch.randn(64, 33)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimisers = [
        Adam([ours], 1e-2, (0.9, 0.95), 1e-5),
        torch.optim.Adam([theirs], 1e-2, (0.9, 0.95), eps=1e-5, fused=True),
    ]
    for step in range(20):
        gradient = torch.randn(64, 33) * 10 ** (step % 4 - 2)
        for parameter, optimiser in zip((ours, theirs), optimisers, strict=True):
            parameter.grad = gradient.clone()
            optimiser.step()
    assert torch.equal(ours, theirs)
    for name in ("step", "exp_avg", "exp_avg_sq"):
        assert torch.equal(optimisers[0].state[ours][name], optimisers[1].state[theirs][name])


def test_training_does_not_load_torchs_compiler():
    code = """
import sys, torch
from ga3c.flops import cost
from ga3c.networks import build_network
from ga3c.optim import build_optimiser
network = build_network("small", (4, 84, 84), 6, "orthogonal")
cost(network, torch.zeros(1, 4, 84, 84), 6)
for name in ("adam", "rmsprop"):
    optimiser = build_optimiser(name, network.parameters(), 1e-3, 0.99, 1e-5)
    sum(network(torch.zeros(2, 4, 84, 84))[0].flatten()).backward()
    optimiser.step()
    optimiser.load_state_dict(optimiser.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
