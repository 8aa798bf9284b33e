"""ARC: actor regularized control (LOOP, paper 003, 5.1).

The best distribution over plans that stays near a prior, max E[L] with KL(p || p_prior) <= eps
(Eq. 6), is proportional to p_prior exp(L / eta). Its Gaussian approximation is found by iterative
importance sampling: the first candidates are the prior's, later ones the last Gaussian's (Eq. 7-8).
The prior is a mixture: beta the actor's plans, the rest the last step's plan with noise. As in the
published code eta is given and not solved for, and each iteration weighs by exp(L / eta) what the
last one found, without the ratio to the prior: more of them go farther from it.

Departures from the paper:
  - A tenth of the old variance is kept beside Eq. 8, as in the published code: where scores differ
    by much more than eta one candidate has all the weight, and without it no variance would be left
    after the first iteration. The first time it is of the noise's part of the prior's variance,
    (1 - beta) sigma^2, which is none where all of the prior is the actor's (published: sigma^2).
  - Gaussians are cut off at two deviations and at the bounds, as in PETS and the published code.
  - The last step's plan goes on with 0, its range's middle, as in PETS. The paper says no more than
    shifted, the published code repeats the plan's last action. Near a bound a cut-off Gaussian is
    narrow, and where scores differ by less than eta little but the actor's share moves it: without
    an action that is new, plans held theirs for many steps, see docs/lookahead.md. The published
    code holds less, as it starts from the sampled plan where it explores, and keeps the actor's.
  - The last step's plan is its mean (mu_{t-1}), also where it explores.
  - The actor's plans follow its mean action, as in the published code, and so begin alike. They
    count to the N candidates, where that code adds them.
  - In the paper they are among the first candidates alone (p_prior is the first distribution); in
    the published code they are among those of each iteration, so that the search cannot leave them
    behind where they score well (`keep_actor_plans`). Then, as far as scores weigh little against
    eta, each iteration moves the mean by beta towards the actor's plans: of n iterations with an
    infinite eta the last step's plan keeps (1 - beta)^n of the mean, and not 1 - beta as in the
    prior.
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
    """Actor regularized control. The defaults are the published settings, but for the last.

    Args:
        horizon: H.
        candidates: N.
        iterations: How often Eq. 8 is applied.
        actor_share: beta, the actor's share of the first candidates, rounded, but at least one of
            them where it is above 0 and not all where it is below 1; 1 is for policies learned from
            fixed data.
        temperature: eta, in units of the score; the larger, the less the scores move the plan from
            the prior.
        prior_std: sigma of the noise around the last step's plan. The bounds let no more than 0.5
            take effect, and the less the nearer they are, see `truncated_normal`.
        momentum: Share of the old variance that is kept at each iteration; 0 is Eq. 8.
        keep_actor_plans: Score the actor's plans at each iteration, as the published code does, and
            not at the first alone, as Eq. 8 has it. It holds plans nearer to the actor: where the
            scores are noise of deviation 2, six actions end 0.66 from it in place of 1.27.
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
        keep_actor_plans: bool = False,
    ):
        super().__init__(horizon, candidates)
        require(iterations >= 1, "planner.iterations", iterations, "an integer of at least 1")
        require(0 <= actor_share <= 1, "planner.actor_share", actor_share, "a number in [0, 1]")
        require(temperature > 0, "planner.temperature", temperature, "a number > 0")
        require(prior_std > 0, "planner.prior_std", prior_std, "a number > 0")
        require(0 <= momentum < 1, "planner.momentum", momentum, "a number in [0, 1)")
        self.iterations, self.temperature, self.momentum = iterations, temperature, momentum
        self.prior_std, self.keep_actor_plans = prior_std, keep_actor_plans
        least, most = int(actor_share > 0), candidates - int(actor_share < 1)
        self.actor_plans = min(max(round(actor_share * candidates), least), most)

    @property
    def needs_policy(self) -> bool:
        return self.actor_plans > 0

    def __call__(self, problem: Problem, state: Tensor, start: Start | None = None) -> Solution:
        mean = self.mean_of(problem, state, start)
        around = self.candidates - self.actor_plans
        drawn = truncated_normal(mean, torch.full_like(mean, self.prior_std), around)
        plans = self.plans_of_actor(problem, state)
        candidates = torch.cat([plans, drawn], 1)  # p_prior
        variance = torch.full_like(mean, self.prior_std**2 * around / self.candidates)
        if not self.keep_actor_plans:
            plans, around = plans[:, :0], self.candidates
        for iteration in range(self.iterations):
            if iteration:
                drawn = truncated_normal(mean, variance.sqrt(), around)
                candidates = torch.cat([plans, drawn], 1)
            score = problem.score(state, candidates)
            weight = softmax_weights(score, self.temperature)
            mean, new_variance = moments(candidates, weight)  # Eq. 8
            variance = new_variance.lerp(variance, self.momentum)
        return weighted_solution(mean, candidates, score, weight, shifted(mean))

    def plans_of_actor(self, problem: Problem, state: Tensor) -> Tensor:
        """beta N plans [B, beta N, H, A] of the actor."""
        if not self.actor_plans:
            return state.new_zeros(len(state), 0, self.horizon, problem.action_size)
        assert problem.propose is not None
        return problem.propose(state, self.actor_plans, self.horizon)
