"""State values."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbrl.networks.mlp import EnsembleMLP


class Value(nn.Module):
    """V(s).

    Args:
        observation_size: S.
        hidden_sizes: Widths of the ReLU layers.
    """

    def __init__(self, observation_size: int, hidden_sizes: Sequence[int]):
        super().__init__()
        self.ensemble = EnsembleMLP([observation_size, *hidden_sizes, 1], 1, torch.relu_)

    def forward(self, observation: Tensor) -> Tensor:
        """Values [B] of observations [B, S]."""
        values: Tensor = self.ensemble(observation.unsqueeze(0))
        return values.squeeze(0).squeeze(-1)
