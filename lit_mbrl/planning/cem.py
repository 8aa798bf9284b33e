"""The cross-entropy method, as PETS plans with it (arXiv 1805.12114, 6; paper 004).

Repeated: draw N plans from a truncated Gaussian, score them, and move the Gaussian to the K best.
"""

from typing import Literal

from torch import Tensor

from lit_mbrl.errors import require
from lit_mbrl.planning.planner import (
    Planner,
    Problem,
    Solution,
    Start,
    best_of,
    elite_weights,
    moments,
    shifted,
    truncated_normal,
    weighted_solution,
)


class CEM(Planner):
    """The cross-entropy method. The defaults are PETS's for HalfCheetah.

    The next search starts from the last Gaussian's mean, a step later, with 0 for the new last
    action, as PETS's does. The published code also stops early where the variance is nearly 0; it
    is left out, because the searches of a batch end together.

    Args:
        horizon: H.
        candidates: N.
        elites: K, the candidates that the Gaussian is moved to.
        iterations: How often it is moved.
        momentum: Share of the old mean and variance that is kept each time (alpha).
        initial_std: Deviation of the first Gaussian; the actions' range over 4 in PETS.
        returns: The last Gaussian's `mean`, as in PETS, or the `best` candidate of the last
            iteration.
    """

    def __init__(
        self,
        horizon: int = 30,
        candidates: int = 500,
        elites: int = 50,
        iterations: int = 5,
        momentum: float = 0.1,
        initial_std: float = 0.5,
        returns: Literal["mean", "best"] = "mean",
    ):
        super().__init__(horizon, candidates)
        require_elites(candidates, elites, iterations, momentum, initial_std)
        require(returns in ("mean", "best"), "planner.returns", returns, "mean or best")
        self.elites, self.iterations, self.momentum = elites, iterations, momentum
        self.initial_std, self.returns = initial_std, returns

    def __call__(self, problem: Problem, state: Tensor, start: Start | None = None) -> Solution:
        mean = self.mean_of(problem, state, start)
        variance = mean.new_full(mean.shape, self.initial_std**2)
        for _ in range(self.iterations):
            candidates = truncated_normal(mean, variance.sqrt(), self.candidates)
            score = problem.score(state, candidates)
            weight = elite_weights(score, self.elites)
            new_mean, new_variance = moments(candidates, weight)
            mean = new_mean.lerp(mean, self.momentum)
            variance = new_variance.lerp(variance, self.momentum)
        next_mean = shifted(mean)
        if self.returns == "best":
            weight = elite_weights(score, 1)
            mean = best_of(candidates, score)
        return weighted_solution(mean, candidates, score, weight, next_mean)


def require_elites(
    candidates: int, elites: int, iterations: int, momentum: float, initial_std: float
) -> None:
    """Check what the planners that move a Gaussian to elites have in common.

    Raises:
        ConfigurationError: If a value is out of its range.
    """
    require(
        1 <= elites <= candidates,
        "planner.elites",
        elites,
        f"1 to planner.candidates ({candidates})",
    )
    require(iterations >= 1, "planner.iterations", iterations, "an integer of at least 1")
    require(0 <= momentum < 1, "planner.momentum", momentum, "a number in [0, 1)")
    require(initial_std > 0, "planner.initial_std", initial_std, "a number > 0")
