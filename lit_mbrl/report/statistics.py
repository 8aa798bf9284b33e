"""What runs come to."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from lit_mbrl.report.runs import Run

LAST = 3
"""The final return of a run is the mean of so many of its last evaluations."""

RESAMPLES = 10_000


class Curve(NamedTuple):
    """Several runs at the environment steps of their evaluations, each an array [N].

    `error` is the standard error of the mean, not a number (NaN) where only one run got; `runs`
    counts those that got there.
    """

    env_steps: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    runs: np.ndarray


def mean_curve(runs: Sequence[Run]) -> Curve:
    """The mean over the runs that got to each step.

    A run that was evaluated at other steps than the rest is interpolated between its own.

    Args:
        runs: With one evaluation or more between them.
    """
    steps = np.unique(np.concatenate([run.env_steps for run in runs]))
    values = np.array(
        [
            np.interp(steps, run.env_steps, run.returns, left=np.nan, right=np.nan)
            for run in runs
            if len(run.evaluations)
        ]
    )
    there = (~np.isnan(values)).sum(0)
    mean = np.nansum(values, 0) / there
    squares = np.nansum((values - mean) ** 2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(squares / (there - 1) / there)
    return Curve(steps, mean, error, there)


def final_return(run: Run) -> float:
    """Mean of the last `LAST` evaluations, or of as many as there are; NaN without any."""
    return float(run.returns[-LAST:].mean()) if len(run.evaluations) else math.nan


def steps_to(run: Run, threshold: float) -> float:
    """Environment step of the first evaluation at or above a return; infinity if none was."""
    reached = run.env_steps[run.returns >= threshold]
    return float(reached[0]) if reached.size else math.inf


def standard_error(values: np.ndarray) -> float:
    """Of the mean of the values [N]; NaN for fewer than two."""
    return float(stats.sem(values)) if values.size > 1 else math.nan


def interquartile_mean(*strata: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the middle half of the values of all strata (Agarwal et al., arXiv 2108.13264).

    Fewer than four values have no quarters to cut: theirs is the mean.

    Args:
        strata: Arrays [..., N_i], the values of each task.
        axis: The one along which they are.
    """
    together = np.concatenate(strata, axis=axis)
    return np.asarray(stats.trim_mean(together, proportiontocut=0.25, axis=axis))


def interval(*strata: np.ndarray) -> tuple[float, float] | None:
    """95% interval of the interquartile mean, by a percentile bootstrap within each stratum.

    Args:
        strata: Arrays [N_i], the values of each task.

    Returns:
        Its ends; None if a stratum has fewer than two values, which cannot vary.
    """
    if min(values.size for values in strata) < 2:
        return None
    found = stats.bootstrap(
        strata,
        interquartile_mean,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),  # the same page from the same runs
    ).confidence_interval
    return float(found.low), float(found.high)
