import numpy as np
import pytest

from ga3c.returns import lambda_returns, n_step_returns


def by_the_book(rewards, terminated, truncated, values, bootstrap_value, discount, trace_decay):
    """The sum over delta errors of each trace, written down slowly, one entry at a time."""
    steps, envs = rewards.shape
    result = np.zeros((steps, envs))
    for k in range(envs):
        following = [*values[1:, k], bootstrap_value[k]]
        for t in range(steps):
            advantage, weight = 0.0, 1.0
            for i in range(t, steps):
                next_value = 0.0 if terminated[i, k] else following[i]
                advantage += weight * (rewards[i, k] + discount * next_value - values[i, k])
                if terminated[i, k] or truncated[i, k]:
                    break
                weight *= discount * trace_decay
            result[t, k] = values[t, k] + advantage
    return result


def column(*numbers):
    return np.array(numbers, np.float32)[:, None]


def flags(*numbers):
    return np.array(numbers, bool)[:, None]


NONE = flags(0, 0, 0)


@pytest.mark.parametrize("trace_decay", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_returns_agree_with_the_slow_formula(discount, trace_decay):
    rng = np.random.default_rng(3)
    rewards, values = rng.normal(size=(2, 12, 40)).astype(np.float32)
    bootstrap_value = rng.normal(size=40).astype(np.float32)
    ended = rng.random((12, 40)) < 0.25
    terminated = ended & (rng.random((12, 40)) < 0.5)
    arguments = (rewards, terminated, ended & ~terminated, values, bootstrap_value, discount, trace_decay)
    np.testing.assert_allclose(lambda_returns(*arguments), by_the_book(*arguments), rtol=1e-4, atol=1e-5)


def test_a_terminal_reward_reaches_every_step():
    returns = n_step_returns(column(0, 0, 1), flags(0, 0, 1), NONE, column(9, 9, 9), np.float32([9]), 0.5)
    np.testing.assert_array_equal(returns, column(0.25, 0.5, 1))


def test_nothing_follows_a_terminal_step():
    returns = n_step_returns(column(1, 2, 4), flags(1, 0, 0), NONE, column(9, 9, 9), np.float32([8]), 0.5)
    np.testing.assert_array_equal(returns, column(1, 6, 8))


def test_a_truncated_step_bootstraps_from_the_final_state():
    # The step after the truncated one is taken in the final state, so its value (6) is the final state's.
    returns = n_step_returns(column(1, 0, 3), NONE, flags(1, 0, 0), column(5, 6, 7), np.float32([0]), 0.5)
    assert returns[0, 0] == 1 + 0.5 * 6


def test_a_truncation_at_the_end_of_a_rollout_bootstraps_from_the_bootstrap_value():
    returns = n_step_returns(column(1, 1, 1), NONE, flags(0, 0, 1), column(0, 0, 0), np.float32([4]), 0.5)
    assert returns[2, 0] == 1 + 0.5 * 4


def test_an_open_rollout_bootstraps_from_the_state_after_its_last_step():
    returns = n_step_returns(column(0, 0, 0), NONE, NONE, column(9, 9, 9), np.float32([8]), 0.5)
    np.testing.assert_array_equal(returns, column(1, 2, 4))


def test_lambda_0_is_the_one_step_target():
    values = column(1, 2, 3)
    returns = lambda_returns(column(0, 0, 0), NONE, NONE, values, np.float32([4]), 0.5, 0.0)
    np.testing.assert_array_equal(returns, column(1, 1.5, 2))
