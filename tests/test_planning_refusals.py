"""Bad options of planners and of PETS are refused by name."""

from collections.abc import Callable
from typing import Any

import pytest
from planning_problems import pets

from lit_mbrl.errors import ConfigurationError
from lit_mbrl.planning import ARC, CEM, ICEM, MPPI


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CEM(horizon=0), "planner.horizon: 0 was given; allowed: an integer of at least 1"),
        (lambda: MPPI(candidates=1), "planner.candidates"),
        (lambda: CEM(candidates=10, elites=11), r"planner.elites: 11 .* 1 to planner.candidates"),
        (lambda: CEM(iterations=0), "planner.iterations"),
        (lambda: ICEM(momentum=1.0), "planner.momentum"),
        (lambda: CEM(initial_std=0.0), "planner.initial_std"),
        (lambda: ICEM(decay=0.5), "planner.decay"),
        (lambda: ICEM(kept_share=1.5), "planner.kept_share"),
        (lambda: ICEM(noise_exponent=-1.0), "planner.noise_exponent"),
        (lambda: MPPI(std=0.0), "planner.std"),
        (lambda: MPPI(temperature=0.0), "planner.temperature"),
        (lambda: ARC(actor_share=2.0), "planner.actor_share"),
        (lambda: ARC(prior_std=0.0), "planner.prior_std"),
        (lambda: pets(particles=7), "model.particles: 7 .* a multiple of model.dynamics_elites"),
        (lambda: pets(sampling="mean"), "model.particles: 5 was given; allowed: 1 with mean"),
        (lambda: pets(sampling="ts2"), "model.sampling"),
        (lambda: pets(gamma=1.5), "model.gamma"),
        (lambda: pets(fit_patience=0), "model.fit_patience"),
        (lambda: pets(reward="nowhere.reward"), "model.reward: 'nowhere.reward' was given"),
        (lambda: pets(reward="lit_mbrl.envs.rewards.not_there"), "model.reward"),
    ],
)
def test_bad_values_are_named(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()
