"""The objectives of SAC (arXiv 1812.05905) and of its extension to plans (paper 000, App. C).

A plan of one step is an action, and then each function is SAC's.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.objectives.values import plan_value_target

Values = Callable[[Tensor, Tensor], Tensor]
"""Values [C, B] of C critics for observations [B, S] and plans [B, k, A]."""


class Plan(NamedTuple):
    """tau^k ~ pi^k(.|s): actions [B, k, A] and log pi^k(tau^k|s) [B] (paper 000, Eq. 1-4)."""

    action: Tensor
    log_prob: Tensor


@torch.no_grad()
def soft_target(
    windows: TensorDict,
    next_plan: Plan,
    target_critic: Values,
    alpha: Tensor,
    gamma: float,
    max_return: float | None = None,
) -> Tensor:
    """Eq. 51 (SAC: Eq. 5) with the minimum of the critics, [B].

    sum_m gamma^m r_{t+m} + gamma^k (1 - terminated) (min_i Q_i^-(s_{t+k}, tau) - alpha log pi^k).

    With a `max_return`, targets are at most that and what entropies can add to it: log 2 for each
    of the kA numbers in [-1, 1] of a plan, every k steps from s_{t+k} on. A bound as that of
    hindsight experience replay (arXiv 1707.01495, App. A); none of the papers here has one.
    """
    following = windows["next"]
    value = target_critic(following["observation"], next_plan.action).amin(0)
    next_value = value - alpha * next_plan.log_prob
    target = plan_value_target(windows["reward"], following["terminated"], next_value, gamma)
    if max_return is None:
        return target
    k, action_size = next_plan.action.shape[1:]
    discount = gamma**k
    entropies = k * action_size * math.log(2) * discount / (1 - discount)
    return target.minimum(max_return + alpha * entropies)


def soft_actor_loss(observation: Tensor, plan: Plan, critic: Values, alpha: Tensor) -> Tensor:
    """Eq. 53 (SAC: Eq. 9): the mean of alpha log pi^k(tau|s) - min_i Q_i(s, tau)."""
    return (alpha * plan.log_prob - critic(observation, plan.action).amin(0)).mean()
