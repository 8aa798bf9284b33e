"""The objectives of SAC (arXiv 1812.05905) on windows of one step."""

from collections.abc import Callable

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.objectives.values import plan_value_target, squared_error

Sampler = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Reparameterised actions [B, A] and their log-probabilities [B] for observations [B, S]."""
Values = Callable[[Tensor, Tensor], Tensor]
"""Values [C, B] of C critics for observations [B, S] and plans [B, 1, A]."""


@torch.no_grad()
def soft_target(
    transitions: TensorDict, sample: Sampler, target_critic: Values, alpha: Tensor, gamma: float
) -> Tensor:
    """Eq. 5: r + gamma (1 - terminated) (min_i Q_i^-(s', a') - alpha log pi(a'|s')), [B]."""
    following = transitions["next"]
    action, log_prob = sample(following["observation"])
    value = target_critic(following["observation"], action.unsqueeze(-2)).amin(0)
    next_value = value - alpha * log_prob
    return plan_value_target(transitions["reward"], following["terminated"], next_value, gamma)


def soft_critic_loss(
    transitions: TensorDict, critic: Values, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq. 5: half the squared error of each critic, summed, and the critics' mean value."""
    values = critic(transitions["observation"], transitions["action"])
    return squared_error(values, target), values.detach().mean()


def soft_actor_loss(
    observation: Tensor, sample: Sampler, critic: Values, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq. 9: alpha log pi(a|s) - min_i Q_i(s, a), and the log-probabilities [B]."""
    action, log_prob = sample(observation)
    value = critic(observation, action.unsqueeze(-2)).amin(0)
    return (alpha * log_prob - value).mean(), log_prob
