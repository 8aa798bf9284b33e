"""Some networks of the ensemble made ready for many steps without gradients, as planning takes.

Planning spends its time in steps of a few thousand rows, whose many small operations then cost as
much as their products. Compared with `Dynamics.step_with` the networks' weights are gathered once,
the input's standardisation is part of the first layer, and the clamped variance is one sigmoid:

    log var = min + softplus(max - softplus(max - l) - min), so that
    var     = e^min + e^max sigmoid(l - max).

A step of 500 rows through five networks of 2 x 64 takes half the time.
"""

from contextlib import nullcontext

import torch
from torch import Tensor

from lit_mbrl.dynamics.ensemble import Dynamics
from lit_mbrl.networks.mlp import affine
from lit_mbrl.networks.noise import standard_normal
from lit_mbrl.precision import float32


class FrozenNetworks:
    """A copy of some networks of an ensemble as they are now.

    Made under autocast, it computes hidden layers in autocast's precision and all else in float32
    (see `lit_mbrl.precision`).

    Args:
        dynamics: The ensemble.
        members: Indices [M] of the networks.
    """

    @torch.no_grad()
    def __init__(self, dynamics: Dynamics, members: Tensor):
        self.dynamics, self.members = dynamics, members
        network, device = dynamics.ensemble, members.device
        self.activation = network.activation
        self.mixed = torch.is_autocast_enabled(device.type)
        self.weights = [weight[members] for weight in network.weights]
        self.biases = [bias[members] for bias in network.biases]
        with float32(members):
            first = self.weights[0] / dynamics.input_std.unsqueeze(-1)
            self.biases[0] = self.biases[0] - dynamics.input_mean @ first.unsqueeze(1)
        self.weights[0] = first
        if self.mixed:
            low = torch.get_autocast_dtype(device.type)
            self.weights[1:-1] = [weight.to(low) for weight in self.weights[1:-1]]
            self.biases[1:-1] = [bias.to(low) for bias in self.biases[1:-1]]
        outputs = len(dynamics.max_log_var)
        self.biases[-1][..., outputs:] -= dynamics.max_log_var
        self.min_variance = dynamics.min_log_var.exp()
        self.max_variance = dynamics.max_log_var.exp()

    @torch.no_grad()
    def step(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`Dynamics.step_with` the members, to rounding.

        Args:
            observation: s [M, B, S].
            action: a [M, B, A] in [-1, 1].

        Returns:
            Sampled next observation [M, B, S], reward [M, B], and whether the episode ends there
            [M, B].
        """
        x = torch.cat([observation, action], -1)
        # Each layer in the precision of its weights. (The context itself costs small plans time.)
        with float32(x) if self.mixed else nullcontext():
            for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
                x = self.activation(affine(x.to(weight.dtype), weight, bias))
            last = affine(x.float(), self.weights[-1], self.biases[-1])
        mean, excess = last.chunk(2, -1)
        variance = torch.addcmul(self.min_variance, self.max_variance, excess.sigmoid())
        sample = torch.addcmul(mean, variance.sqrt_(), standard_normal(mean))
        following = observation + sample[..., :-1]
        terminated = self.dynamics.ends(observation, action, following, self.members)
        return following, sample[..., -1], terminated
