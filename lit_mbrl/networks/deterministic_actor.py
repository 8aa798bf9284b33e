"""The deterministic policy of DDPG."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbrl.errors import require
from lit_mbrl.networks.linear import perceptron


class DeterministicActor(nn.Module):
    """mu(s), acting in [-1, 1] by a tanh (DDPG, arXiv 1509.02971, section 7).

    Args:
        observation_size: S.
        action_size: A.
        hidden_sizes: Widths of the ReLU layers.
        exploration_std: Deviation of the noise with which it explores.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int],
        exploration_std: float,
    ):
        super().__init__()
        name, allowed = "model.exploration_std", "a number >= 0"
        require(exploration_std >= 0, name, exploration_std, allowed)
        self.exploration_std = exploration_std
        self.network = perceptron(observation_size, hidden_sizes, action_size).append(nn.Tanh())
        for parameter in self.network[-2].parameters():
            nn.init.uniform_(parameter, -3e-3, 3e-3)  # actions begin near zero

    def forward(self, observation: Tensor) -> Tensor:
        """Actions [..., A] for observations [..., S]."""
        return self.network(observation)

    def mode(self, observation: Tensor) -> Tensor:
        """The same, under the name that all actors have for it."""
        return self(observation)

    def act(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        """An action [..., A] for [..., S], with noise if it is to explore."""
        action = self(observation)
        if deterministic:
            return action
        return (action + self.exploration_std * torch.randn_like(action)).clamp(-1, 1)
