"""Targets of the critic: n-step returns (Mnih et al. 2016, arXiv:1602.01783, Algorithm S3) and lambda-returns.

Notation: T steps of N environments. ``s_t`` is the state in which step t was taken, ``s_T`` the state after the last
one. Environments reset on the *next* step (``AutoresetMode.NEXT_STEP``): the step after an episode's end returns the
first state of the next episode whatever the action, and is no transition. Such a step is not *live*; the state in
which it is taken is the final state of the episode, so its value is what a truncated episode bootstraps from.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


def n_step_returns(
    rewards: Floats,
    terminated: Bools,
    truncated: Bools,
    values: Floats,
    bootstrap_value: Floats,
    discount: float,
) -> Floats:
    """R_t = r_t + discount * R_{t+1}, restarted where an episode ends.

    Args:
      rewards: [T, N] r_0 .. r_{T-1}; the reward of a terminal step is included.
      terminated: [T, N] the episode ended in a terminal state after step t: nothing follows.
      truncated: [T, N] the episode was cut after step t: V(s_{t+1}) stands for what would follow.
      values: [T, N] V(s_t), as predicted when the step was taken.
      bootstrap_value: [N] V(s_T).
      discount: gamma, per agent step, in [0, 1].

    Returns:
      [T, N] float32. Entries of steps that are not live mean nothing.
    """
    return lambda_returns(rewards, terminated, truncated, values, bootstrap_value, discount, 1.0)


def lambda_returns(
    rewards: Floats,
    terminated: Bools,
    truncated: Bools,
    values: Floats,
    bootstrap_value: Floats,
    discount: float,
    trace_decay: float,
) -> Floats:
    """The targets V(s_t) + A_t of generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438).

    G_t = r_t + discount * ((1 - lambda) * V(s_{t+1}) + lambda * G_{t+1}), with G_T = V(s_T). ``trace_decay`` is
    lambda; 1 gives the n-step return. The other arguments, and the result, are those of ``n_step_returns``.
    """
    next_values = np.concatenate((values[1:], bootstrap_value[None]))
    # How much of what follows counts, and how much of that as G_{t+1}; the rest is V(s_{t+1}).
    of_what_follows: Floats = np.where(terminated, np.float32(0), np.float32(discount))
    of_return: Floats = np.where(truncated, np.float32(0), np.float32(trace_decay) * of_what_follows)
    returns = rewards + (of_what_follows - of_return) * next_values
    next_return = bootstrap_value
    for t in range(len(rewards) - 1, -1, -1):
        returns[t] += of_return[t] * next_return
        next_return = returns[t]
    return returns
