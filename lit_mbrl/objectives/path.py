"""Paths of a policy in a model: what objectives over several steps are made of."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Policy = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A sampled action [..., A] and its log-probability [...] at observations [..., S]."""

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Next observation [..., S], reward [...] and whether the episode ends there [...], of a model."""


class Path(NamedTuple):
    """H steps of a policy in a model, and its action at their end.

    Attributes:
        observation: s_0..s_H [..., H + 1, S]; behind a termination the state before it.
        action: a_0..a_H [..., H + 1, A].
        log_prob: log pi(a_h|s_h) [..., H + 1].
        reward: Rewards of the H steps [..., H], zero behind a termination.
        ended: Whether the episode has ended when s_h is reached [..., H + 1].
    """

    observation: Tensor
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    ended: Tensor


def unroll(
    observation: Tensor, horizon: int, policy: Policy, step: Step, ended: Tensor | None = None
) -> Path:
    """Let a policy act H times in a model; gradients flow through both where they are enabled.

    Args:
        observation: s_0 [..., S].
        horizon: H; with 0 nothing is imagined, and the policy acts once.
        policy: Reparameterised, such as `Actor.sample`.
        step: Reparameterised, such as `Dynamics.step`.
        ended: Whether the episode had ended before s_0 [...]; none had if it is left out.
    """
    if ended is None:
        ended = torch.zeros(observation.shape[:-1], dtype=torch.bool, device=observation.device)
    action, log_prob = policy(observation)
    observations, actions, log_probs = [observation], [action], [log_prob]
    rewards, ends = [observation.new_zeros((*observation.shape[:-1], 0))], [ended]
    for _ in range(horizon):
        following, reward, terminated = step(observation, action)
        rewards.append(torch.where(ended, torch.zeros_like(reward), reward).unsqueeze(-1))
        ended = ended | terminated
        # A terminal state may be anything, even infinite.
        observation = torch.where(ended.unsqueeze(-1), observation, following)
        action, log_prob = policy(observation)
        observations.append(observation)
        actions.append(action)
        log_probs.append(log_prob)
        ends.append(ended)
    return Path(
        torch.stack(observations, -2),
        torch.stack(actions, -2),
        torch.stack(log_probs, -1),
        torch.cat(rewards, -1),
        torch.stack(ends, -1),
    )
