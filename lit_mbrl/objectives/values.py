"""Value targets over windows of k steps; k = 1 is the ordinary transition."""

import torch
from torch import Tensor


def discounted_return(reward: Tensor, gamma: float) -> Tensor:
    """sum_m gamma^m r_{t+m} of rewards [..., k], zero where a window is masked -> [...]."""
    weights = gamma ** torch.arange(reward.shape[-1], device=reward.device)
    return (reward * weights).sum(-1)


def plan_value_target(
    reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: float
) -> Tensor:
    """The k-step target of MPPVE (paper 000, Eq. 16 and 51), SAC's target for k = 1.

    Args:
        reward: Rewards [..., k] of the window, zero after a termination.
        terminated: Whether the window ended in a termination [...]; a time limit is none.
        next_value: V(s_{t+k}) [...], with its entropy term in the soft form.
        gamma: Discount of one step.

    Returns:
        sum_m gamma^m r_{t+m} + gamma^k (1 - terminated) V(s_{t+k}), [...].
    """
    assert reward.shape[:-1] == terminated.shape == next_value.shape
    discount = gamma ** reward.shape[-1]
    bootstrapped = torch.where(terminated, torch.zeros_like(next_value), discount * next_value)
    return discounted_return(reward, gamma) + bootstrapped


def squared_error(values: Tensor, target: Tensor) -> Tensor:
    """1/2 (Q - y)^2, mean over the batch and sum over the critics (paper 000, Eq. 13).

    Args:
        values: Values [C, B] of C critics.
        target: Common target [B].
    """
    assert values.shape[1:] == target.shape
    return 0.5 * (values - target).square().mean(-1).sum()
