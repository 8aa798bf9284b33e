"""The tanh-squashed Gaussian policy of SAC."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mbrl.networks.linear import perceptron
from lit_mbrl.networks.noise import standard_normal

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class Actor(nn.Module):
    """pi(a|s) = tanh(N(mean(s), std(s))), acting in [-1, 1] (SAC, arXiv 1801.01290, App. C).

    Own code instead of a distribution object because it is called thousands of times a second and
    needs the action and its log-probability from one pass.

    Args:
        observation_size: S.
        action_size: A.
        hidden_sizes: Widths of the ReLU layers.
        std: Standard deviation before squashing, everywhere; a function of s that is learned if
            None.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int],
        std: float | None = None,
    ):
        super().__init__()
        self.log_std = None if std is None else math.log(std)
        outputs = action_size if std else 2 * action_size
        self.network = perceptron(observation_size, hidden_sizes, outputs)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation [..., A] of the Gaussian before squashing."""
        outputs = self.network(observation)
        if self.log_std is not None:
            return outputs, torch.full_like(outputs, self.log_std)
        mean, log_std = outputs.chunk(2, -1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def sample(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """A reparameterised action [..., A] and its log-probability [...] for [..., S]."""
        mean, log_std = self(observation)
        noise = standard_normal(mean)
        unsquashed = mean + log_std.exp() * noise
        return unsquashed.tanh(), _log_density(noise, log_std, unsquashed)

    def act(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        """An action [..., A] for [..., S]: the mode, or a sample."""
        return self.mode(observation) if deterministic else self.sample(observation)[0]

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """log pi(a|s) [...] of actions [..., A] at [..., S]."""
        mean, log_std = self(observation)
        unsquashed = _unsquash(action)
        return _log_density((unsquashed - mean) * (-log_std).exp(), log_std, unsquashed)

    def noise(self, observation: Tensor, action: Tensor) -> Tensor:
        """The noise [..., A] with which the policy takes actions [..., A] at [..., S]."""
        mean, log_std = self(observation)
        return (_unsquash(action) - mean) * (-log_std).exp()

    def action(self, observation: Tensor, noise: Tensor) -> Tensor:
        """The action [..., A] that the policy takes at [..., S] with a noise [..., A]."""
        mean, log_std = self(observation)
        return (mean + log_std.exp() * noise).tanh()

    def mode(self, observation: Tensor) -> Tensor:
        """The deterministic action [..., A]: the squashed mean."""
        return self(observation)[0].tanh()


def _unsquash(action: Tensor) -> Tensor:
    """artanh, of actions a hair inside of the bounds, which single precision can round them to."""
    return action.clamp(-1 + 1e-6, 1 - 1e-6).atanh()


def _log_density(noise: Tensor, log_std: Tensor, unsquashed: Tensor) -> Tensor:
    """log pi [...] of the action tanh(u) that a standard normal noise [..., A] has led to."""
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    # log(1 - tanh(u)^2) in the form that does not underflow for large |u|.
    squash = 2 * (math.log(2) - unsquashed - F.softplus(-2 * unsquashed))
    return (gaussian - squash).sum(-1)
