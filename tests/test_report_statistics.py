"""The report's numbers against known values."""

import math
from pathlib import Path

import numpy as np
import pytest
from report_page import write

from lit_mbrl.report import statistics
from lit_mbrl.report.runs import from_files

pytestmark = pytest.mark.filterwarnings("error:::lit_mbrl.report")


def test_runs_of_unequal_length_and_other_steps(tmp_path: Path) -> None:
    """A mean is of the runs that got there; between its own evaluations a run is interpolated."""
    write(tmp_path, "sac", "SAC", "Hopper-v5", 0, [1.0, 3.0, 8.0])
    write(tmp_path, "sac", "SAC", "Hopper-v5", 1, [5.0], every=1500)
    write(tmp_path, "sac", "SAC", "Hopper-v5", 2, [])
    curve = statistics.mean_curve(from_files(tmp_path))
    assert curve.env_steps.tolist() == [1000, 1500, 2000, 3000]
    assert curve.mean.tolist() == [1.0, 3.5, 3.0, 8.0]
    assert curve.runs.tolist() == [1, 2, 1, 1]
    # Of 2 and 5: deviation 3 / sqrt(2), divided by sqrt(2).
    assert curve.error[1] == pytest.approx(1.5)
    assert np.isnan(curve.error[[0, 2, 3]]).all()


def test_statistics_against_known_values(tmp_path: Path) -> None:
    eight = np.array([5.0, -1000.0, 3.0, 4.0, 1000.0, 6.0, 2000.0, -2000.0])
    assert statistics.interquartile_mean(eight) == 4.5  # of 3, 4, 5, 6
    assert statistics.interquartile_mean(eight[:4], eight[4:]) == 4.5
    assert statistics.interquartile_mean(np.array([1.0, 2.0, 6.0])) == 3.0
    # The four resamples of two values have the means 0, 50, 50 and 100.
    assert statistics.interval(np.array([0.0, 100.0])) == (0.0, 100.0)
    # Within strata that do not vary nothing varies.
    assert statistics.interval(np.zeros(3), np.full(3, 100.0)) == (50.0, 50.0)
    assert statistics.interval(np.zeros(3), np.zeros(1)) is None
    # A percentile interval of many values is nearly the normal one of a trimmed mean.
    many = np.random.default_rng(0).normal(7.0, 1.0, 400)
    low, high = statistics.interval(many) or (math.nan, math.nan)
    assert low < statistics.interquartile_mean(many) < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1.195 / 400), rel=0.15)
    write(tmp_path, "sac", "SAC", "Hopper-v5", 0, [1.0, 9.0, 2.0, 3.0, 7.0])
    (run,) = from_files(tmp_path)
    assert statistics.final_return(run) == 4.0  # of 2, 3 and 7
    assert statistics.steps_to(run, 9.0) == 2000
    assert statistics.steps_to(run, 9.1) == math.inf
