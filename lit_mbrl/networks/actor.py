"""The tanh-squashed Gaussian policy of SAC."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mbrl.precision import Float32Linear

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class Actor(nn.Module):
    """pi(a|s) = tanh(N(mean(s), std(s))), acting in [-1, 1] (SAC, arXiv 1801.01290, App. C).

    Own code instead of a distribution object because it is called thousands of times a second and
    needs the action and its log-probability from one pass.

    Args:
        observation_size: S.
        action_size: A.
        hidden_sizes: Widths of the ReLU layers.
    """

    def __init__(self, observation_size: int, action_size: int, hidden_sizes: Sequence[int]):
        super().__init__()
        layers: list[nn.Module] = [Float32Linear(observation_size, hidden_sizes[0])]
        for i, o in pairwise(hidden_sizes):
            layers += [nn.ReLU(inplace=True), nn.Linear(i, o)]
        outputs = Float32Linear(hidden_sizes[-1], 2 * action_size)
        self.network = nn.Sequential(*layers, nn.ReLU(inplace=True), outputs)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation [..., A] of the Gaussian before squashing."""
        mean, log_std = self.network(observation).chunk(2, -1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def sample(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """A reparameterised action [..., A] and its log-probability [...] for [..., S]."""
        mean, log_std = self(observation)
        noise = torch.randn_like(mean)
        unsquashed = mean + log_std.exp() * noise
        gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2) in the form that does not underflow for large |u|.
        squash = 2 * (math.log(2) - unsquashed - F.softplus(-2 * unsquashed))
        return unsquashed.tanh(), (gaussian - squash).sum(-1)

    def mode(self, observation: Tensor) -> Tensor:
        """The deterministic action [..., A]: the squashed mean."""
        return self(observation)[0].tanh()
