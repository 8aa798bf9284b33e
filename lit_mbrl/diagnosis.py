"""What a dynamics model is worth on real transitions that it was not fitted to.

The prediction that is judged is that of the elites together: the Gaussian with the mean and the
variance of their mixture (Lakshminarayanan et al., arXiv 1612.01474). Its parts are the D = S + 1
outputs of the model, the S changes of the observation and the reward.
"""

import math
from typing import Any, NamedTuple

import torch
from scipy import stats
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.dynamics import Dynamics
from lit_mbrl.held_out import own_randomness, segments
from lit_mbrl.networks import mean_and_deviation
from lit_mbrl.objectives.path import Step

LEVELS = torch.arange(1, 20) / 20
"""Of the central intervals whose coverage is counted: 5% to 95%."""

ROLLOUTS = 1000
"""About so many rollouts are compared with what really followed."""

EPISODE_STEPS, EPISODE_ROLLOUTS = 50, 20
"""Length of the real episode that is overlaid, and imagined ones over it."""


class Diagnosis(NamedTuple):
    """What `diagnose` has found; all on the CPU.

    Attributes:
        transitions: Held-out transitions, N.
        elite_error: One-step error of each elite by output [M, D], see `standardised_error`.
        error: The same of their mean [D].
        coverage: Share of the targets in the intervals of `LEVELS` by output [L, D].
        recalibrated_coverage: The same with deviations multiplied by `scale`.
        scale: By output [D], see `deviation_scale`; from half the data, coverages are of the other.
        disagreement: Of the elites' means, each transition's [N].
        distance: Of their mean to the target, each transition's [N].
        rank_correlation: Spearman's, of the two; NaN for a single elite.
        rollout_error: Lower quartile, median and upper quartile [3, H] of the rollouts' error.
        rollouts: How many of them got that far in reality [H].
        real: Observations of a real episode [1 + T, S].
        imagined: Imagined from its first observation with its actions [K, 1 + T, S].
    """

    transitions: int
    elite_error: Tensor
    error: Tensor
    coverage: Tensor
    recalibrated_coverage: Tensor
    scale: Tensor
    disagreement: Tensor
    distance: Tensor
    rank_correlation: float
    rollout_error: Tensor
    rollouts: Tensor
    real: Tensor
    imagined: Tensor

    def metrics(self) -> dict[str, float]:
        """One number a figure, those that are defined."""
        found = {
            "one_step_error": float(self.error.mean()),
            "calibration_error": calibration_error(self.coverage),
            "recalibrated_error": calibration_error(self.recalibrated_coverage),
            "disagreement_correlation": self.rank_correlation,
            "rollout_error": float(self.rollout_error[1, -1]),
        }
        return {f"dynamics/{name}": value for name, value in found.items() if math.isfinite(value)}

    def numbers(self) -> dict[str, Any]:
        """All but the points and the episode, for JSON: None is what is not defined."""
        lower, median, upper = self.rollout_error
        return {
            "transitions": self.transitions,
            **self.metrics(),
            "one_step_error_by_output": _finite(self.error),
            "one_step_error_by_elite": [_finite(error) for error in self.elite_error],
            "levels": _finite(LEVELS),
            "coverage_by_level": [_finite(covered) for covered in self.coverage],
            "recalibrated_coverage_by_level": [
                _finite(covered) for covered in self.recalibrated_coverage
            ],
            "deviation_scale_by_output": _finite(self.scale),
            "rollout_error_by_step": {
                "lower_quartile": _finite(lower),
                "median": _finite(median),
                "upper_quartile": _finite(upper),
                "rollouts": self.rollouts.tolist(),
            },
        }


def _finite(values: Tensor) -> list[float | None]:
    return [round(value, 6) if math.isfinite(value) else None for value in values.tolist()]


@torch.no_grad()
def diagnose(dynamics: Dynamics, real: TensorDict, rollout_length: int, seed: int) -> Diagnosis:
    """Compare a model's predictions with real transitions.

    Args:
        dynamics: The model.
        real: Transitions [C, T] of at least two copies of the task, see `held_out.collect`.
        rollout_length: H, steps of the rollouts that are compared.
        seed: Of the imagined rollouts, drawn by generators that nothing else draws from.
    """
    device = dynamics.input_mean.device
    inputs = torch.cat([real["observation"], real["action"]], -1)
    change = real["next", "observation"] - real["observation"]
    target = torch.cat([change, real["reward"].unsqueeze(-1)], -1)
    elites = dynamics.elites
    flat = inputs.flatten(0, 1).to(device).expand(len(elites), -1, -1)
    means, log_vars = (part.cpu() for part in dynamics(flat, elites))
    mean, std = mixture(means, log_vars.exp())
    flat_target = target.flatten(0, 1)
    deviation = mean_and_deviation(flat_target)[1]

    # Whole copies to either half: neighbours in time are too alike to judge each other.
    half = len(flat_target) // real.shape[0] * (real.shape[0] // 2)
    scale = deviation_scale(mean[:half], std[:half], flat_target[:half])
    judged = mean[half:], std[half:], flat_target[half:]

    disagreement = (means.std(0, correction=0) / deviation).square().mean(-1).sqrt()
    distance = ((mean - flat_target) / deviation).square().mean(-1).sqrt()
    ranks = stats.spearmanr(disagreement, distance) if len(elites) > 1 else None

    def step(observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        following, reward, terminated = dynamics.step(observation.to(device), action.to(device))
        return following.cpu(), reward.cpu(), terminated.cpu()

    with own_randomness(seed, device):
        errors, alive = rollout_errors(real, rollout_length, step)
        episode = longest_episode(real)
        start = episode["observation"][:1].expand(EPISODE_ROLLOUTS, -1)
        imagined = open_loop(start, episode["action"].expand(EPISODE_ROLLOUTS, -1, -1), step)
    return Diagnosis(
        transitions=len(flat_target),
        elite_error=standardised_error(means, flat_target),
        error=standardised_error(mean, flat_target),
        coverage=coverage(*judged),
        recalibrated_coverage=coverage(judged[0], judged[1] * scale, judged[2]),
        scale=scale,
        disagreement=disagreement,
        distance=distance,
        rank_correlation=float(ranks.statistic) if ranks else math.nan,
        rollout_error=quartiles(errors, alive),
        rollouts=alive.sum(0),
        real=torch.cat([episode["observation"][:1], episode["next", "observation"]]),
        imagined=torch.cat([start.unsqueeze(1), imagined], 1),
    )


def mixture(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [N, D] of the equal mixture of Gaussians [M, N, D]."""
    variance = variances.mean(0) + means.var(0, correction=0)
    return means.mean(0), variance.sqrt()


def standardised_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Root mean squared error by output in deviations of the target: 1 is that of its mean.

    Args:
        prediction: [..., N, D].
        target: [N, D].

    Returns:
        [..., D].
    """
    return ((prediction - target) / mean_and_deviation(target)[1]).square().mean(-2).sqrt()


def coverage(mean: Tensor, std: Tensor, target: Tensor) -> Tensor:
    """Share of targets in the central intervals of predicted Gaussians (arXiv 1807.00263).

    Args:
        mean: [N, D].
        std: [N, D].
        target: [N, D].

    Returns:
        [L, D], a row for each of `LEVELS`, to which it is equal if the prediction is calibrated.
    """
    # The smallest central interval that holds the target has this level.
    level = torch.erf(((target - mean) / std).abs() / math.sqrt(2))
    return torch.stack([(level <= wanted).float().mean(0) for wanted in LEVELS])


def calibration_error(covered: Tensor) -> float:
    """Expected calibration error: mean |coverage - level| over levels and outputs [L, D]."""
    return float((covered - LEVELS.unsqueeze(-1)).abs().mean())


def deviation_scale(mean: Tensor, std: Tensor, target: Tensor) -> Tensor:
    """What to multiply each output's deviation with so that it fits the errors, [D].

    Scaling of deviations (Levi et al., arXiv 1905.11659), a factor an output: that of greatest
    likelihood, which is the root of the mean squared standardised error.

    Args:
        mean: [N, D].
        std: [N, D].
        target: [N, D].
    """
    return ((target - mean) / std).square().mean(0).sqrt()


def open_loop(start: Tensor, action: Tensor, step: Step) -> Tensor:
    """Observations [N, H, S] imagined from start [N, S] on with given actions [N, H, A].

    What the model takes for a termination does not end a rollout.
    """
    observations = [start]
    for present in action.unbind(1):
        observations.append(step(observations[-1], present)[0])
    return torch.stack(observations[1:], 1)


def rollout_errors(real: TensorDict, length: int, step: Step) -> tuple[Tensor, Tensor]:
    """Errors of imagined rollouts that take the real actions from real observations.

    Args:
        real: Transitions [C, T].
        length: H.
        step: The model's.

    Returns:
        The distance [N, H] of the imagined to the real observation after 1 to H steps, a root mean
        square over the observation's parts in their deviations; and whether there is one [N, H]:
        the real episode had not ended before.
    """
    starts = torch.arange(0, real.numel(), max(1, real.numel() // ROLLOUTS))
    rows, first = starts // real.shape[1], starts % real.shape[1]
    followed = segments(real, rows, first, length)
    done = followed["next", "done"]
    alive = (done.cumsum(1) - done.long()) == 0
    imagined = open_loop(followed["observation"][:, 0], followed["action"], step)
    deviation = mean_and_deviation(real["observation"].flatten(0, 1))[1]
    difference = (imagined - followed["next", "observation"]) / deviation
    return difference.square().mean(-1).sqrt(), alive


def quartiles(values: Tensor, valid: Tensor) -> Tensor:
    """Lower quartile, median and upper quartile [3, H] of the valid ones of values [N, H].

    NaN where none is valid. An infinite one counts as large.
    """
    levels = torch.tensor([0.25, 0.5, 0.75])
    found = torch.full((3, values.shape[1]), math.nan)
    for column in range(values.shape[1]):
        kept = values[valid[:, column], column].nan_to_num(nan=math.inf)
        if len(kept):
            found[:, column] = kept.quantile(levels, interpolation="nearest")
    return found


def longest_episode(real: TensorDict) -> TensorDict:
    """The first `EPISODE_STEPS` transitions of the longest episode in [C, T], or all it has."""
    done = real["next", "done"]
    flat = done.flatten()  # every copy ends with a done step
    ends = flat.nonzero().squeeze(-1)
    begins = torch.cat([torch.zeros(1, dtype=torch.long), ends[:-1] + 1])
    longest = int((ends - begins).argmax())
    begin, end = int(begins[longest]), int(ends[longest]) + 1
    return real.flatten(0, 1)[begin : min(end, begin + EPISODE_STEPS)]
