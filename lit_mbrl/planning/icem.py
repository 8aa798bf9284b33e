"""iCEM: the improved cross-entropy method (Pinneri et al., arXiv 2008.06389, Algorithm 1).

What it adds to CEM: noise that is correlated in time, elites that are kept from one iteration to
the next and from one step of the task to the next, a population that shrinks, the mean as a
candidate of the last iteration, and the best candidate of the last iteration as the plan: the best
there was, if elites are kept and scores are certain. The next search starts from the last mean and
kept elites, a step later, with their last actions repeated; the published code draws the new last
action of a kept elite at random. It also keeps the elites' scores with them, where here they are
scored again with the others, so that no plan stays for a lucky sample of the model's noise.
"""

import math

import torch
from torch import Tensor

from lit_mbrl.errors import require
from lit_mbrl.planning.cem import require_elites
from lit_mbrl.planning.planner import Planner, Problem, Solution, Start, moments, pick, shifted


class ICEM(Planner):
    """The improved cross-entropy method.

    Args:
        horizon: H.
        candidates: N, plans drawn in the first iteration.
        elites: K.
        iterations: How often the Gaussian is moved.
        momentum: Share of the old mean and deviation that is kept each time (alpha).
        initial_std: Deviation of the first Gaussian.
        noise_exponent: beta: the noise's power falls as 1 / f^beta; 0 is white noise.
        decay: gamma, by which the population shrinks from iteration to iteration, not below 2 K.
        kept_share: xi, the share of the elites that is kept.
    """

    def __init__(
        self,
        horizon: int = 30,
        candidates: int = 100,
        elites: int = 10,
        iterations: int = 4,
        momentum: float = 0.1,
        initial_std: float = 0.5,
        noise_exponent: float = 2.0,
        decay: float = 1.25,
        kept_share: float = 0.3,
    ):
        super().__init__(horizon, candidates)
        require_elites(candidates, elites, iterations, momentum, initial_std)
        require(noise_exponent >= 0, "planner.noise_exponent", noise_exponent, "a number >= 0")
        require(decay >= 1, "planner.decay", decay, "a number >= 1")
        require(0 <= kept_share <= 1, "planner.kept_share", kept_share, "a number in [0, 1]")
        self.elites, self.iterations, self.momentum = elites, iterations, momentum
        self.initial_std, self.noise_exponent, self.decay = initial_std, noise_exponent, decay
        self.kept = math.ceil(kept_share * elites)

    def __call__(self, problem: Problem, state: Tensor, start: Start | None = None) -> Solution:
        mean = self.mean_of(problem, state, start)
        deviation = torch.full_like(mean, self.initial_std)
        kept = mean.unsqueeze(1)[:, :0] if start is None else start.kept
        for iteration in range(self.iterations):
            drawn = max(int(self.candidates * self.decay**-iteration), 2 * self.elites)
            noise = coloured_noise(mean, drawn, self.noise_exponent)
            new = mean.unsqueeze(1) + deviation.unsqueeze(1) * noise
            parts = [new.clamp(-1, 1), kept]
            if iteration == self.iterations - 1:
                parts.append(mean.unsqueeze(1))
            candidates = torch.cat(parts, 1)
            score = problem.score(state, candidates)
            best = score.topk(self.elites, -1)  # the best first
            elites = pick(candidates, best.indices)
            kept = elites[:, : self.kept]
            weight = torch.full_like(best.values, 1 / self.elites)
            new_mean, new_variance = moments(elites, weight)
            mean = new_mean.lerp(mean, self.momentum)
            deviation = new_variance.sqrt().lerp(deviation, self.momentum)
        start = Start(shifted(mean, repeat=True), shifted(kept, repeat=True))
        return Solution(elites[:, 0], best.values[:, 0], elites[:, 0], start)


def coloured_noise(like: Tensor, samples: int, exponent: float) -> Tensor:
    """Gaussian noise [B, N, H, A] of unit variance whose power falls as 1 / f^exponent along H.

    Complex white noise, scaled at each frequency and transformed (Timmer and König 1995); the
    frequency 0 counts as the lowest other one.

    Args:
        like: A plan [B, H, A].
        samples: N.
        exponent: 0 gives white noise.
    """
    batch, horizon, size = like.shape
    frequency = torch.fft.rfftfreq(horizon, device=like.device).clamp(min=1 / horizon)
    scale = frequency ** (-exponent / 2)
    shape = (batch, samples, size, len(scale))
    real, imaginary = torch.randn((2, *shape), dtype=like.dtype, device=like.device)
    # The constant's part and, of an even H, the highest frequency's are real.
    share = torch.full_like(scale, 4.0)
    for alone in (0, -1) if horizon % 2 == 0 else (0,):
        share[alone].fill_(2.0)  # not by assignment, for which a GPU would be waited for
        real[..., alone] *= math.sqrt(2)
    deviation = (share * scale.square()).sum().sqrt() / horizon
    noise = torch.fft.irfft(scale * torch.complex(real, imaginary), n=horizon) / deviation
    return noise.transpose(-1, -2)
