"""Real steps explained by the model: with which noise would it have made them?"""

import torch
from torch import Tensor

from lit_mbrl.dynamics.ensemble import Dynamics


def infer_noise(
    dynamics: Dynamics, observation: Tensor, action: Tensor, next_observation: Tensor
) -> Tensor:
    """xi [B, S] with which the best elite steps from s [B, S] by a [B, A] to s' [B, S]."""
    mean, std, _ = _transition(dynamics, observation, action)
    return (next_observation - mean) / std


def step_with_noise(
    dynamics: Dynamics, observation: Tensor, action: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """The best elite's step f(s, a, xi) [B, S] and its mean reward r(s, a) [B]."""
    mean, std, reward = _transition(dynamics, observation, action)
    return mean + std * noise, reward


def _transition(
    dynamics: Dynamics, observation: Tensor, action: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and deviation of s' [B, S] and mean of the reward [B]."""
    inputs = torch.cat([observation, action], -1).unsqueeze(0)
    mean, log_var = (part.squeeze(0) for part in dynamics(inputs, dynamics.elites[:1]))
    return observation + mean[:, :-1], (0.5 * log_var[:, :-1]).exp(), mean[:, -1]
