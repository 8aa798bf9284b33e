"""A deterministic policy whose parameters are one vector, so that many can be tried at once."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_mbrl.networks.standardisation import mean_and_deviation


class PolicyNetwork(nn.Module):
    """pi_theta(s): the policy of POPLIN (arXiv 1906.08649), which proposes to a planner.

    N sets of parameters are a matrix [N, P], and their networks are evaluated together as batched
    matrix products: POPLIN-P searches among them. Observations are standardised; the output is
    linear and cut off at the actions' bounds, as in the published code.

    Args:
        observation_size: S.
        action_size: A.
        hidden_sizes: Widths of the tanh layers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, observation_size: int, action_size: int, hidden_sizes: Sequence[int]):
        super().__init__()
        self.shapes = list(pairwise([observation_size, *hidden_sizes, action_size]))
        layers = []
        for inputs, outputs in self.shapes:
            weight = torch.empty(inputs, outputs).uniform_(-1, 1) / math.sqrt(inputs)
            layers += [weight, torch.zeros(outputs)]
        layers[-2] *= 0.01  # the first proposals are near the middle of the range
        self.theta = nn.Parameter(torch.cat([layer.flatten() for layer in layers]))
        self.register_buffer("mean", torch.zeros(observation_size))
        self.register_buffer("std", torch.ones(observation_size))

    def set_scale(self, observation: Tensor) -> None:
        """Standardise by the mean and deviation of observations [N, S]; constants keep scale 1."""
        mean, std = mean_and_deviation(observation)
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, observation: Tensor, theta: Tensor | None = None) -> Tensor:
        """Actions before they are cut off.

        Args:
            observation: s [..., S]; [N, B, S] for N policies.
            theta: Parameters [N, P]; the network's own if None.

        Returns:
            Actions [..., A]; [N, B, A] for N policies.
        """
        x = (observation - self.mean) / self.std
        sizes = [size for inputs, outputs in self.shapes for size in (inputs * outputs, outputs)]
        parts = (self.theta if theta is None else theta).split(sizes, -1)
        for layer, shape in enumerate(self.shapes):
            weight, bias = parts[2 * layer].unflatten(-1, shape), parts[2 * layer + 1].unsqueeze(-2)
            x = (x.tanh() if layer else x) @ weight + bias
        return x

    def mode(self, observation: Tensor) -> Tensor:
        """The policy's action [..., A] in [-1, 1]."""
        return self(observation).clamp(-1, 1)
