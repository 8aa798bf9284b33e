"""What the planners have in common: the problem, its solution, and how candidates are weighed.

A planner searches for H actions in [-1, 1] that score best from a state. It is called as
`planner(problem, state, start)`, for B states at once, and each state's search is its own. It knows
neither a model nor a policy: what it searches over is a `Problem`, a score and what goes with it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_mbrl.errors import require

Score = Callable[[Tensor, Tensor], Tensor]
"""Scores [B, N] of candidate plans [B, N, H, A] from states [B, S]; more is better."""

Proposal = Callable[[Tensor, int, int], Tensor]
"""Plans [B, N, H, A] that a policy would follow from states [B, S], given S, N and H."""

TRUNCATION = 2.0
"""Standard deviations at which the planners' Gaussians are cut off."""


class Problem(NamedTuple):
    """What is planned for.

    Attributes:
        score: Of candidate plans.
        action_size: A.
        propose: A policy's plans, which ARC's prior needs.
    """

    score: Score
    action_size: int
    propose: Proposal | None = None


class Start(NamedTuple):
    """What a search starts from: what is left of the one a step before.

    Attributes:
        mean: A plan [B, H, A].
        kept: Candidates [B, K, H, A]; K is 0 but in iCEM.
    """

    mean: Tensor
    kept: Tensor


class Solution(NamedTuple):
    """What a planner has found.

    Attributes:
        action: The plan [B, H, A], in [-1, 1].
        score: The mean score [B] of the last candidates, by their weights: of the elites in CEM, of
            the best alone where that is the plan.
        sample: One of the last candidates [B, H, A], drawn by its weight: a plan to explore with.
        start: Of the search a step later.
    """

    action: Tensor
    score: Tensor
    sample: Tensor
    start: Start


class Planner(ABC):
    """Searches for plans of H actions.

    Args:
        horizon: H.
        candidates: N, plans scored in an iteration.
    """

    def __init__(self, horizon: int, candidates: int):
        require(horizon >= 1, "planner.horizon", horizon, "an integer of at least 1")
        require(candidates >= 2, "planner.candidates", candidates, "an integer of at least 2")
        self.horizon, self.candidates = horizon, candidates

    @property
    def needs_policy(self) -> bool:
        """Whether it asks a problem for a policy's plans."""
        return False

    @abstractmethod
    def __call__(self, problem: Problem, state: Tensor, start: Start | None = None) -> Solution:
        """Plan.

        Args:
            problem: What is planned for.
            state: s [B, S].
            start: What to start from, such as the last step's solution has it. A row of zeros is
                none at all: a search for it begins in the middle of the actions' ranges, which is
                what the kept candidates of such a row are, too.

        Returns:
            The solution for each state.
        """

    def mean_of(self, problem: Problem, state: Tensor, start: Start | None) -> Tensor:
        """The plan [B, H, A] to start from."""
        if start is not None:
            return start.mean
        return state.new_zeros(len(state), self.horizon, problem.action_size)


def require_no_policy(planner: Planner) -> None:
    """Check that a planner serves an algorithm that has no policy whose plans it could ask for.

    Raises:
        ConfigurationError: If it asks for them.
    """
    name = type(planner).__name__
    allowed = "one that asks for no policy's plans, such as CEM, or ARC with actor_share 0"
    require(not planner.needs_policy, "model.planner", name, allowed)


def shifted(plans: Tensor, repeat: bool = False) -> Tensor:
    """What is left of plans [..., H, A] a step later.

    Args:
        plans: Their first actions are taken.
        repeat: Let the last action be the one before it again, and not 0, its range's middle.
    """
    last = plans[..., -1:, :]
    return torch.cat([plans[..., 1:, :], last if repeat else torch.zeros_like(last)], -2)


def truncated_normal(mean: Tensor, std: Tensor, samples: int) -> Tensor:
    """Plans [B, N, H, A] around a mean [B, H, A] that stay in [-1, 1], as PETS draws them.

    The Gaussian is cut off at two deviations, and these are shrunk to half the distance to the
    nearer bound, so that nothing has to be clipped.
    """
    std = torch.minimum(std, (1 - mean.abs()).clamp(min=0) / TRUNCATION)
    cut = math.erf(TRUNCATION / math.sqrt(2))
    shape = (len(mean), samples, *mean.shape[1:])
    uniform = torch.empty(shape, dtype=mean.dtype, device=mean.device).uniform_(-cut, cut)
    normal = math.sqrt(2) * torch.erfinv(uniform)
    return mean.unsqueeze(1) + std.unsqueeze(1) * normal


def elite_weights(score: Tensor, elites: int) -> Tensor:
    """Weights [B, N] of candidates: 1 / K for those with the K best scores [B, N], else 0."""
    best = score.topk(elites, -1).indices
    return torch.zeros_like(score).scatter_(-1, best, 1 / elites)


def softmax_weights(score: Tensor, temperature: float) -> Tensor:
    """Weights [B, N] of candidates, proportional to exp(score / temperature)."""
    return (score / temperature).softmax(-1)


def moments(candidates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [B, H, A] of candidates [B, N, H, A] by weights [B, N] that sum to 1.

    Weights do so to rounding: a mean of candidates on a bound is kept from lying beyond it.
    """
    mean = torch.einsum("bn,bnha->bha", weight, candidates).clamp(-1, 1)
    deviation = (candidates - mean.unsqueeze(1)).square()
    return mean, torch.einsum("bn,bnha->bha", weight, deviation)


def pick(candidates: Tensor, index: Tensor) -> Tensor:
    """The candidates [B, K, H, A] with indices [B, K]."""
    rows = torch.arange(len(candidates), device=candidates.device).unsqueeze(-1)
    return candidates[rows, index]


def best_of(candidates: Tensor, score: Tensor) -> Tensor:
    """The candidate [B, H, A] with the best score [B, N]."""
    return pick(candidates, score.argmax(-1, keepdim=True)).squeeze(1)


def weighted_solution(
    action: Tensor, candidates: Tensor, score: Tensor, weight: Tensor, next_mean: Tensor
) -> Solution:
    """A solution that keeps nothing, with the score and a sample of the weighted candidates.

    Args:
        action: The plan [B, H, A].
        candidates: [B, N, H, A].
        score: Of each [B, N].
        weight: Of each [B, N].
        next_mean: What the next search starts from [B, H, A].
    """
    sample = pick(candidates, weight.multinomial(1)).squeeze(1)
    start = Start(next_mean, candidates[:, :0])
    return Solution(action, (weight * score).sum(-1), sample, start)
