"""Model predictive path integral control (Williams et al., ICRA 2017, Algorithm 2).

Draw N plans around the last one, and take their mean, weighted by exp(score / lambda). Its
control cost, lambda u^T Sigma^-1 eps, is left out: the score is the task's reward alone.
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
    weighted_solution,
)


class MPPI(Planner):
    """Exponentially weighted plans of fixed spread.

    Args:
        horizon: H.
        candidates: N.
        iterations: How often the plan is moved; 1 in the paper.
        std: Deviation of the candidates' actions, which are clipped to [-1, 1].
        temperature: lambda, in units of the score.
    """

    def __init__(
        self,
        horizon: int = 30,
        candidates: int = 500,
        iterations: int = 5,
        std: float = 0.3,
        temperature: float = 0.1,
    ):
        super().__init__(horizon, candidates)
        require(iterations >= 1, "planner.iterations", iterations, "an integer of at least 1")
        require(std > 0, "planner.std", std, "a number > 0")
        require(temperature > 0, "planner.temperature", temperature, "a number > 0")
        self.iterations, self.std, self.temperature = iterations, std, temperature

    def __call__(self, problem: Problem, state: Tensor, start: Start | None = None) -> Solution:
        mean = self.mean_of(problem, state, start)
        shape = (len(state), self.candidates, *mean.shape[1:])
        for _ in range(self.iterations):
            noise = torch.randn(shape, dtype=mean.dtype, device=mean.device)
            candidates = (mean.unsqueeze(1) + self.std * noise).clamp(-1, 1)
            score = problem.score(state, candidates)
            weight = softmax_weights(score, self.temperature)
            mean = moments(candidates, weight)[0]
        return weighted_solution(mean, candidates, score, weight, shifted(mean))
