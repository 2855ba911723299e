"""The actor-critic loss of A3C (Mnih et al. 2016, arXiv:1602.01783), as GA3C uses it.

For a sample with return R: -log pi(a|s) * (R - V(s)) - entropy_cost * H(pi(.|s)) + value_cost * (R - V(s))^2, where the
advantage R - V(s) is a constant in the first term. All of it is computed in float32, whatever the network ran in.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ga3c.choices import LossConfig

_LEAST_LOG = -1e30  # far below the logarithm of every probability that is not 0 in float32; its sums stay finite


class Loss(NamedTuple):
    """The loss to differentiate, and its parts as means over the live samples, without their costs; all scalars."""

    total: Tensor
    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor


def actor_critic_loss(
    logits: Tensor, values: Tensor, actions: Tensor, returns: Tensor, live: Tensor, config: LossConfig
) -> Loss:
    """The loss of a batch.

    Args:
      logits: [B, A] of the policy being trained.
      values: [B] V(s).
      actions: [B] int64, the actions taken.
      returns: [B] targets, constants.
      live: [B] bool; the others are no transitions and count for nothing.
      config: how the terms are put together.
    """
    logits, values = logits.float(), values.float()
    weights = live.float()
    count = weights.sum().clamp(min=1.0)
    log_policy = F.log_softmax(logits, dim=1)
    policy = log_policy.exp()
    if config.log_floor > 0:
        log_policy = policy.clamp(min=config.log_floor).log()
    # A return that is not live may be anything, and 0 * inf is not 0.
    errors = torch.where(live, returns - values, 0.0)
    advantages = errors.detach()
    if config.normalise_advantages:
        mean = advantages.sum() / count
        variance = ((advantages - mean).square() * weights).sum() / count
        advantages = (advantages - mean) / (variance.sqrt() + 1e-8)
    chosen = log_policy.gather(1, actions.unsqueeze(1)).squeeze(1)
    policy_loss = -(chosen * advantages * weights).sum()
    # An action that a network rules out has a logit of -inf: p log p is 0, but 0 * -inf and its gradient are nan.
    finite_log = log_policy.clamp(min=_LEAST_LOG)
    entropy = -((policy * finite_log).sum(dim=1) * weights).sum()
    value_loss = errors.square().sum()
    total = policy_loss - config.entropy_cost * entropy + config.value_cost * value_loss
    if config.reduction == "mean":
        total = total / count
    return Loss(total, policy_loss.detach() / count, value_loss.detach() / count, entropy.detach() / count)
