"""The probabilistic ensemble of PETS (arXiv 1805.12114) and MBPO (paper 000, 4.2.1)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_mbrl.adam import FusedAdam
from lit_mbrl.compilation import Compiler
from lit_mbrl.envs import LEARNED, resolve_termination
from lit_mbrl.errors import require
from lit_mbrl.networks.mlp import EnsembleMLP, lies_transposed
from lit_mbrl.networks.noise import standard_normal
from lit_mbrl.networks.standardisation import mean_and_deviation
from lit_mbrl.precision import float32

TERMINATION_SIZES = (64, 64)
"""Widths of the layers of a learned termination's heads."""


class Dynamics(nn.Module):
    """p(s', r | s, a): E Gaussian networks over (s' - s, r), of which the elites predict.

    Inputs are standardised with the mean and deviation of the last fit's training data; targets
    are not. Log-variances are softly clamped between learnable bounds (PETS, App. A.1).

    Where the task's termination function is not known, each network has a Bernoulli head for it,
    P(terminated | s'): a function of the state that was sampled, as nearly all terminations are.
    (Reading s and a too, it was right less often on Hopper and Walker2d.) It is trained with
    terminations weighted for their rarity, which is taken off its log-odds when it predicts (prior
    correction, King and Zeng 2001), and predicts the likelier outcome; see `fit_termination`.

    Args:
        observation_size: S.
        action_size: A.
        termination: Dotted path of the task's termination function, or `learned`.
        hidden_sizes: Widths of the swish layers.
        weight_decay: L2 coefficient of each layer, one more than `hidden_sizes`.
        networks: Number of networks, E.
        elites: How many of them predict: the best on the holdout of the last fit.
        learning_rate: Adam's.
    """

    input_mean: Tensor
    input_std: Tensor
    elites: Tensor
    termination_weight: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        networks: int = 7,
        elites: int = 5,
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        self.compiler = Compiler()  # of its fits
        require(
            len(weight_decay) == len(hidden_sizes) + 1,
            "model.dynamics_weight_decay",
            list(weight_decay),
            f"{len(hidden_sizes) + 1} numbers, one a layer of model.dynamics_hidden_sizes",
        )
        require(
            all(decay >= 0 for decay in weight_decay),
            "model.dynamics_weight_decay",
            list(weight_decay),
            "numbers >= 0",
        )
        require(
            all(size >= 1 for size in hidden_sizes),
            "model.dynamics_hidden_sizes",
            list(hidden_sizes),
            "a list of integers >= 1",
        )
        require(
            1 <= elites <= networks,
            "model.dynamics_elites",
            elites,
            f"1 to model.dynamics_networks ({networks})",
        )
        self.weight_decay = tuple(weight_decay)
        self.learning_rate = learning_rate
        inputs, outputs = observation_size + action_size, observation_size + 1
        self.termination = None if termination == LEARNED else resolve_termination(termination)
        if self.termination is None:
            sizes = [observation_size, *TERMINATION_SIZES, 1]
            self.termination_head = EnsembleMLP(sizes, networks, torch.relu_)
            self.register_buffer("termination_weight", torch.ones(()))
        self.ensemble = EnsembleMLP([inputs, *hidden_sizes, 2 * outputs], networks, swish)
        for weight, bias in zip(self.ensemble.weights, self.ensemble.biases, strict=True):
            # Truncated at two deviations, as in the published MBPO.
            std = 1.0 / (2.0 * math.sqrt(weight.shape[1]))
            nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(bias)
        self.max_log_var = nn.Parameter(torch.full((outputs,), 0.5))
        self.min_log_var = nn.Parameter(torch.full((outputs,), -10.0))
        self.register_buffer("input_mean", torch.zeros(inputs))
        self.register_buffer("input_std", torch.ones(inputs))
        self.register_buffer("elites", torch.arange(elites))

    def optimizer(self) -> Optimizer:
        """Adam over the ensemble, each layer's weights with their own decay.

        Adam's `weight_decay` adds lambda w to the gradient, which is the gradient of the
        lambda/2 ||w||^2 that the published MBPO adds to the loss.
        """
        groups: list[dict[str, Any]] = [
            {"params": [weight], "weight_decay": decay}
            for weight, decay in zip(self.ensemble.weights, self.weight_decay, strict=True)
        ]
        rest = [*self.ensemble.biases, self.max_log_var, self.min_log_var]
        return FusedAdam([*groups, {"params": rest}], lr=self.learning_rate)

    def set_input_scale(self, inputs: Tensor) -> None:
        """Standardise by the mean and deviation of inputs [N, S + A]; constants keep scale 1."""
        mean, std = mean_and_deviation(inputs)
        self.input_mean.copy_(mean)
        self.input_std.copy_(std)

    def forward(self, inputs: Tensor, members: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [E, B, S + 1] of (s' - s, r) for raw inputs (s, a) [E, B, S + A].

        With `members` [M], only those networks are evaluated and E is M.
        """
        x = (inputs - self.input_mean) / self.input_std
        outputs = self.ensemble(x, members)
        if not lies_transposed(outputs):
            mean, log_var = outputs.chunk(2, -1)
            return mean, clamped(log_var, self.min_log_var, self.max_log_var)
        mean, log_var = outputs.mT.chunk(2, -2)
        bounds = self.min_log_var.unsqueeze(-1), self.max_log_var.unsqueeze(-1)
        return mean.mT, clamped(log_var, *bounds).mT

    def termination_logit(self, following: Tensor, members: Tensor | None = None) -> Tensor:
        """Log-odds [E, B] that s' [E, B, S] ended the episode, of a learned termination.

        They are those of training, with terminations weighted by `termination_weight`: a row
        counts as a termination if they are above its logarithm.
        """
        states = following.shape[-1]
        x = (following - self.input_mean[:states]) / self.input_std[:states]
        with float32(x):  # thresholds are sharp
            return self.termination_head(x, members).squeeze(-1)

    def step(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One imagined step, each row predicted by an elite drawn uniformly at random.

        The rows are dealt to the elites in a random order, so that a row costs one network and
        not all of them: its elite is uniform, and no elite serves more than ceil(B / elites) rows.

        Args:
            observation: s [B, S].
            action: a [B, A] in [-1, 1].

        Returns:
            Sampled next observation [B, S], reward [B], and whether the episode ends there [B].
        """
        rows, members = len(observation), len(self.elites)
        hand = math.ceil(rows / members)
        # A place for each row and, where the last hand is short, for some rows twice.
        dealt = torch.randperm(members * hand, device=observation.device)
        inputs = (part[dealt % rows].view(members, hand, -1) for part in (observation, action))
        next_observation, reward, terminated = self.step_with(self.elites, *inputs)
        order = torch.arange(len(dealt), device=dealt.device)
        place = torch.empty_like(dealt).scatter_(0, dealt, order)[:rows]  # where each row went
        return (
            next_observation.flatten(0, 1)[place],
            reward.flatten()[place],
            terminated.flatten()[place],
        )

    def step_with(
        self, members: Tensor, observation: Tensor, action: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One imagined step by given networks, reparameterised.

        Args:
            members: Indices [M] of the networks, one a slice.
            observation: s [M, B, S].
            action: a [M, B, A] in [-1, 1].

        Returns:
            Sampled next observation [M, B, S], reward [M, B], and whether the episode ends there
            [M, B].
        """
        mean, log_var = self(torch.cat([observation, action], -1), members)
        sample = mean + (0.5 * log_var).exp() * standard_normal(mean)
        next_observation = observation + sample[..., :-1]
        terminated = self.ends(observation, action, next_observation, members)
        return next_observation, sample[..., -1], terminated

    def expected_step(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One imagined step without noise: by the mean of the elites' means.

        Args:
            observation: s [B, S].
            action: a [B, A] in [-1, 1].

        Returns:
            Next observation [B, S], reward [B], and whether the episode ends there [B]; where that
            is learned, by most of the elites.
        """
        members = self.elites
        inputs = torch.cat([observation, action], -1).expand(len(members), -1, -1)
        mean = self(inputs, members)[0].mean(0)
        next_observation = observation + mean[..., :-1]
        before, taken, after = (
            x.expand(len(members), -1, -1) for x in (observation, action, next_observation)
        )
        votes = self.ends(before, taken, after, members).float()
        return next_observation, mean[..., -1], votes.mean(0) > 0.5

    def ends(
        self, observation: Tensor, action: Tensor, following: Tensor, members: Tensor
    ) -> Tensor:
        """Whether s' [M, B, S] ends the episode [M, B]: as known, or as `members` [M] predict."""
        if self.termination is not None:
            return self.termination(observation, action, following)
        return self.termination_logit(following, members) > self.termination_weight.log()


def clamped(log_var: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """A log-variance, softly between two bounds (PETS, App. A.1)."""
    log_var = upper - F.softplus(upper - log_var)
    return lower + F.softplus(log_var - lower)


def swish(x: Tensor) -> Tensor:
    """x sigmoid(x), in place where no gradient will ask for x."""
    return F.silu(x, inplace=not torch.is_grad_enabled())
