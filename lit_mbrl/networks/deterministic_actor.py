"""The deterministic policy of DDPG."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lit_mbrl.precision import Float32Linear


class DeterministicActor(nn.Module):
    """mu(s), acting in [-1, 1] by a tanh (DDPG, arXiv 1509.02971, section 7).

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
        outputs = Float32Linear(hidden_sizes[-1], action_size)
        for last in outputs.parameters():
            nn.init.uniform_(last, -3e-3, 3e-3)  # actions begin near zero
        self.network = nn.Sequential(*layers, nn.ReLU(inplace=True), outputs, nn.Tanh())

    def forward(self, observation: Tensor) -> Tensor:
        """Actions [..., A] for observations [..., S]."""
        return self.network(observation)

    def mode(self, observation: Tensor) -> Tensor:
        """The same, under the name that all actors have for it."""
        return self(observation)
