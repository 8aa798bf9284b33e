"""Random shooting (Nagabandi et al., arXiv 1708.02596, IV-B; paper 004)."""

import torch
from torch import Tensor

from lit_mbrl.planning.planner import Planner, Problem, Solution, Start, best_of


class RandomShooting(Planner):
    """The best of N plans with uniformly random actions; it starts from nothing.

    Args:
        horizon: H.
        candidates: N. 2,500 in PETS.
    """

    def __init__(self, horizon: int = 30, candidates: int = 2500):
        super().__init__(horizon, candidates)

    def __call__(self, problem: Problem, state: Tensor, start: Start | None = None) -> Solution:
        shape = (len(state), self.candidates, self.horizon, problem.action_size)
        candidates = torch.empty(shape, dtype=state.dtype, device=state.device).uniform_(-1, 1)
        score = problem.score(state, candidates)
        best = best_of(candidates, score)
        start = Start(torch.zeros_like(best), candidates[:, :0])
        return Solution(best, score.amax(-1), best, start)
