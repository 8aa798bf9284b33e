"""ARC: actor regularized control (LOOP, paper 003, 5.1).

The best distribution over plans that stays near a prior, max E[L] with KL(p || p_prior) <= eps
(Eq. 6), is proportional to p_prior exp(L / eta). Its Gaussian approximation is found by iterative
importance sampling: the first candidates are the prior's, later ones the last Gaussian's (Eq. 7-8).
The prior is a mixture: beta the actor's plans, the rest the last step's plan with noise.

As in the published code a tenth of the old variance is kept beside Eq. 8, the first time of the
noise's part of the prior's, (1 - beta) sigma^2 (there sigma^2): where scores differ by much more
than eta one candidate has all the weight, and without it no variance would be left after the first
iteration. Gaussians are cut off at two deviations and at the bounds, as PETS does, and the last
action of the last step's plan is repeated. Unlike it, the actor's plans are among the first
candidates alone, as the paper has it (p_prior is the first distribution); there they are added to
the N candidates of each iteration. And the last step's plan is its mean (mu_{t-1}); there, where it
explores, the sampled plan.
"""

import torch
from torch import Tensor

from lit_mbrl.errors import require
from lit_mbrl.planning.planner import (
    Planner,
    Problem,
    Solution,
    Start,
    moments,
    shifted,
    softmax_weights,
    truncated_normal,
    weighted_solution,
)


class ARC(Planner):
    """Actor regularized control. The defaults are the published settings.

    Args:
        horizon: H.
        candidates: N.
        iterations: How often Eq. 8 is applied.
        actor_share: beta, the actor's share of the first candidates, rounded, but at least one of
            them where it is above 0; 1 is for policies learned from fixed data.
        temperature: eta, in units of the score; the larger, the nearer the plan is to the prior.
        prior_std: sigma of the noise around the last step's plan; 2 is the actions' whole range.
        momentum: Share of the old variance that is kept at each iteration; 0 is Eq. 8.
    """

    def __init__(
        self,
        horizon: int = 3,
        candidates: int = 100,
        iterations: int = 5,
        actor_share: float = 0.05,
        temperature: float = 1.0,
        prior_std: float = 0.5,
        momentum: float = 0.1,
    ):
        super().__init__(horizon, candidates)
        require(iterations >= 1, "planner.iterations", iterations, "an integer of at least 1")
        require(0 <= actor_share <= 1, "planner.actor_share", actor_share, "a number in [0, 1]")
        require(temperature > 0, "planner.temperature", temperature, "a number > 0")
        require(prior_std > 0, "planner.prior_std", prior_std, "a number > 0")
        require(0 <= momentum < 1, "planner.momentum", momentum, "a number in [0, 1)")
        self.iterations, self.temperature, self.momentum = iterations, temperature, momentum
        self.prior_std = prior_std
        self.actor_plans = max(round(actor_share * candidates), int(actor_share > 0))

    @property
    def needs_policy(self) -> bool:
        return self.actor_plans > 0

    def __call__(self, problem: Problem, state: Tensor, start: Start | None = None) -> Solution:
        candidates = self.prior(problem, state, start)
        score = problem.score(state, candidates)
        weight = softmax_weights(score, self.temperature)
        mean, new_variance = moments(candidates, weight)  # Eq. 8
        noise = self.prior_std**2 * (1 - self.actor_plans / self.candidates)
        variance = new_variance.lerp(torch.full_like(new_variance, noise), self.momentum)
        for _ in range(self.iterations - 1):
            candidates = truncated_normal(mean, variance.sqrt(), self.candidates)
            score = problem.score(state, candidates)
            weight = softmax_weights(score, self.temperature)
            mean, new_variance = moments(candidates, weight)  # Eq. 8
            variance = new_variance.lerp(variance, self.momentum)
        return weighted_solution(mean, candidates, score, weight, shifted(mean, repeat=True))

    def prior(self, problem: Problem, state: Tensor, start: Start | None) -> Tensor:
        """Plans [B, N, H, A]: beta of the actor, the rest around the plan to start from."""
        mean = self.mean_of(problem, state, start)
        std = torch.full_like(mean, self.prior_std)
        around = truncated_normal(mean, std, self.candidates - self.actor_plans)
        if not self.actor_plans:
            return around
        assert problem.propose is not None
        return torch.cat([problem.propose(state, self.actor_plans, self.horizon), around], 1)
