"""A regression with Gaussian noise."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbrl.networks.mlp import EnsembleMLP
from lit_mbrl.networks.noise import standard_normal

LOG_STD_MIN, LOG_STD_MAX = -10.0, 0.5
LOG_STD_INITIAL = -3.0
"""Of the bias: a model that knows nothing yet must not lead far away from where a state is."""


class GaussianMLP(nn.Module):
    """y = mu(x) + sigma(x) zeta with zeta ~ N(0, I) (S2VG, paper 002, 3.1).

    Args:
        inputs: Numbers in x, X.
        outputs: Numbers in y, Y.
        hidden_sizes: Widths of the ReLU layers.
    """

    def __init__(self, inputs: int, outputs: int, hidden_sizes: Sequence[int]):
        super().__init__()
        self.ensemble = EnsembleMLP([inputs, *hidden_sizes, 2 * outputs], 1, torch.relu_)
        self.ensemble.biases[-1].data[..., outputs:] = LOG_STD_INITIAL

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, Y] at x [B, X]."""
        mean, log_std = self.ensemble(x.unsqueeze(0)).squeeze(0).chunk(2, -1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()

    def sample(self, x: Tensor) -> Tensor:
        """Reparameterised y [B, Y] at x [B, X]."""
        mean, std = self(x)
        return mean + std * standard_normal(mean)
