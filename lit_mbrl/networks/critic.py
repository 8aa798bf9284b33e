"""State-action and plan values."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbrl.networks.mlp import EnsembleMLP
from lit_mbrl.objectives.values import squared_error


class Critic(nn.Module):
    """Q(s, a_t..a_{t+k-1}) of an ensemble of critics (MPPVE, paper 000, Eq. 5; k = 1 is SAC's Q).

    Args:
        observation_size: S.
        action_size: A.
        plan_length: k, the number of actions that the value is conditioned on.
        hidden_sizes: Widths of the ReLU layers.
        critics: Number of critics; their minimum is taken in targets (clipped double Q).
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        plan_length: int,
        hidden_sizes: Sequence[int],
        critics: int,
    ):
        super().__init__()
        self.plan_shape = (plan_length, action_size)
        sizes = [observation_size + plan_length * action_size, *hidden_sizes, 1]
        # In place: the gradient of ReLU needs its output alone.
        self.ensemble = EnsembleMLP(sizes, critics, torch.relu_)

    def forward(self, observation: Tensor, plan: Tensor) -> Tensor:
        """Values [C, B] of observations [B, S] and plans [B, k, A]."""
        assert observation.shape[:1] == plan.shape[:1] and plan.shape[1:] == self.plan_shape
        x = torch.cat([observation, plan.flatten(-2)], -1)
        return self.ensemble(x.expand(self.ensemble.networks, -1, -1)).squeeze(-1)

    def loss(self, observation: Tensor, plan: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """1/2 (Q(s, plan) - y)^2 (paper 000, Eq. 13), and the mean value, without gradient.

        Args:
            observation: s [B, S].
            plan: Actions [B, k, A].
            target: y [B], common to the critics, over which the loss is summed.
        """
        values = self(observation, plan)
        return squared_error(values, target), values.detach().mean()
