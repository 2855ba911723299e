import math

import pytest
import torch

from ga3c.choices import LossConfig
from ga3c.losses import actor_critic_loss


def config(**changes):
    settings = {"entropy_cost": 0.0, "value_cost": 0.0, "reduction": "sum", "log_floor": 0.0}
    return LossConfig(**({"normalise_advantages": False} | settings | changes))


def gradients(logits, values, actions, returns, live, settings):
    logits, values = torch.tensor(logits, requires_grad=True), torch.tensor(values, requires_grad=True)
    loss = actor_critic_loss(logits, values, torch.tensor(actions), torch.tensor(returns), torch.tensor(live), settings)
    loss.total.backward()
    return loss, logits.grad, values.grad


def test_the_policy_gradient_is_the_advantage_times_pi_minus_the_action():
    logits = [[0.0, math.log(3.0)]]  # pi = 1/4, 3/4
    _, gradient, value_gradient = gradients(logits, [1.0], [0], [3.0], [True], config())
    # d(-log pi(a) * A) / d logits = A * (pi - onehot(a)), with A = 3 - 1.
    torch.testing.assert_close(gradient, 2 * torch.tensor([[0.25 - 1, 0.75]]))
    assert value_gradient is None or value_gradient.abs().sum() == 0  # the advantage is a constant


def test_the_value_gradient_is_twice_the_error():
    _, _, gradient = gradients([[0.0, 0.0]], [1.0], [0], [3.0], [True], config(value_cost=0.5))
    torch.testing.assert_close(gradient, torch.tensor([1.0 - 3.0]))


def test_the_entropy_gradient_is_by_hand():
    logits = [[0.0, math.log(3.0)]]
    loss, gradient, _ = gradients(logits, [1.0], [0], [1.0], [True], config(entropy_cost=1.0))
    policy = torch.tensor([0.25, 0.75])
    entropy = -(policy * policy.log()).sum()
    torch.testing.assert_close(loss.entropy, entropy)
    # d(-H) / d logit_j = pi_j * (log pi_j + H)
    torch.testing.assert_close(gradient, (policy * (policy.log() + entropy))[None])


def test_steps_that_are_no_transitions_count_for_nothing():
    settings = config(entropy_cost=0.01, value_cost=0.5, reduction="mean", normalise_advantages=True)
    rows = [[0.1, 0.4], [0.3, 0.1], [0.2, -0.4]]
    alone = gradients(rows[:2], [0.5, 0.1], [1, 0], [2.0, -1.0], [True, True], settings)
    masked = gradients(rows, [0.5, 0.1, 7.0], [1, 0, 1], [2.0, -1.0, math.nan], [True, True, False], settings)
    torch.testing.assert_close(masked[0], alone[0])
    torch.testing.assert_close(masked[1][:2], alone[1])
    assert masked[1][2].abs().sum() == 0
    assert masked[2][2] == 0


def test_the_mean_is_over_live_samples():
    rows, values, actions, returns = [[0.0, 0.0]] * 4, [0.0] * 4, [0] * 4, [1.0] * 4
    total = gradients(rows, values, actions, returns, [True, True, False, False], config())[0].total
    mean = gradients(rows, values, actions, returns, [True, True, False, False], config(reduction="mean"))[0].total
    torch.testing.assert_close(mean, total / 2)


def test_the_papers_log_floor_cuts_the_gradient_where_it_holds():
    logits = [[0.0, -30.0]]
    _, gradient, _ = gradients(logits, [0.0], [1], [1.0], [True], config(log_floor=1e-6))
    assert gradient.abs().sum() == 0
    loss, gradient, _ = gradients(logits, [0.0], [1], [1.0], [True], config())
    torch.testing.assert_close(gradient, torch.tensor([[1.0, -1.0]]))
    torch.testing.assert_close(loss.policy_loss, torch.tensor(30.0))


def test_normalised_advantages_do_not_depend_on_the_rewards_scale():
    settings = config(normalise_advantages=True)
    rows, actions, live = [[0.1, 0.4], [0.3, 0.1], [0.2, 0.2]], [0, 1, 0], [True] * 3
    _, small, _ = gradients(rows, [0.0] * 3, actions, [1.0, 2.0, 4.0], live, settings)
    _, large, _ = gradients(rows, [0.0] * 3, actions, [100.0, 200.0, 400.0], live, settings)
    torch.testing.assert_close(small, large)


def test_reduced_precision_logits_give_a_float32_loss():
    loss = actor_critic_loss(
        torch.zeros(2, 3, dtype=torch.bfloat16),
        torch.zeros(2, dtype=torch.bfloat16),
        torch.tensor([0, 2]),
        torch.ones(2),
        torch.ones(2, dtype=torch.bool),
        config(entropy_cost=0.01, value_cost=0.5),
    )
    assert loss.total.dtype == torch.float32
    assert loss.entropy == pytest.approx(math.log(3), rel=1e-6)


@pytest.mark.parametrize("log_floor", [0.0, 1e-6])
def test_an_action_that_is_ruled_out_counts_for_nothing(log_floor):
    settings = config(entropy_cost=0.01, value_cost=0.5, log_floor=log_floor)
    with_it, gradient, _ = gradients([[0.2, -math.inf, 0.7]], [0.1], [2], [1.0], [True], settings)
    without, its_gradient, _ = gradients([[0.2, 0.7]], [0.1], [1], [1.0], [True], settings)
    for ours, theirs in zip(with_it, without, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert gradient[0, 1] == 0
    torch.testing.assert_close(gradient[:, [0, 2]], its_gradient)
