import numpy as np
import pytest
import torch

from ga3c.optim import RMSProp, build_optimiser, set_learning_rate


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
