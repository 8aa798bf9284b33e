"""Terminations that the dynamics learn, where a task's own function is not known."""

import math
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import Continuous_MountainCarEnv
from tensordict import TensorDict
from test_envs import Rows, balancing_actions, rollout, uniform_actions
from tiny import CONF, TINY, TINY_MODEL, execute

from lit_mbrl.dynamics import Dynamics, fit

HELD_OUT = 2000


def transitions(rows: Rows) -> TensorDict:
    observation, action, following, terminated = (
        torch.as_tensor(np.stack(column)) for column in zip(*rows, strict=True)
    )
    return TensorDict(
        {
            "observation": observation.float(),
            "action": action.float(),
            "reward": torch.zeros(len(rows)),
            "next": {"observation": following.float(), "terminated": terminated},
        },
        batch_size=[len(rows)],
    )


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Walker2d-v5"])
def test_it_is_right_on_held_out_rollouts(env_id: str) -> None:
    """Of random and of trained-like actions, where guessing none is right on 97 to 98 of 100."""
    kinds = [transitions(rollout(env_id, make)) for make in (uniform_actions, balancing_actions)]
    held_out = torch.cat([kind[-HELD_OUT:] for kind in kinds])
    torch.manual_seed(0)
    sizes = held_out["observation"].shape[-1], held_out["action"].shape[-1]
    dynamics = Dynamics(*sizes, "learned", [16, 16], [0.0, 0.0, 0.0])
    optimizer = dynamics.optimizer()
    for rows in (3000, 6000):  # from fit to fit, as in a run
        train = torch.cat([kind[:rows] for kind in kinds])
        report = fit(dynamics, optimizer, train, patience=1)
    following, ended = held_out["next", "observation"], held_out["next", "terminated"]
    with torch.no_grad():
        logit = dynamics.termination_logit(following.expand(5, -1, -1), dynamics.elites)
    predicted = logit > dynamics.termination_weight.log()
    right, guessed = (predicted == ended).float().mean(), (~ended).float().mean()
    assert right >= 0.99
    assert guessed < 0.975
    assert report.termination_error is not None
    assert report.termination_error < 0.01


@pytest.mark.parametrize("rows", [1, 23])
def test_a_step_ends_where_the_sampled_state_says_so(rows: int) -> None:
    """Heads made to say: ended if the first dimension of s' is above 0.3."""
    torch.manual_seed(0)
    dynamics = Dynamics(4, 2, "learned", [16, 16], [0.0, 0.0, 0.0], networks=3, elites=2)
    dynamics.set_input_scale(torch.randn(100, 6) * 2 + 1)
    weight = torch.tensor(7.0)
    dynamics.termination_weight.copy_(weight)
    head = dynamics.termination_head
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        # Two rectified units make the identity: relu(x) - relu(-x).
        head.weights[0][:, 0, 0], head.weights[0][:, 0, 1] = 1, -1
        for unit in (0, 1):
            head.weights[1][:, unit, unit] = 1
            head.weights[2][:, unit, 0] = 1000 * (-1) ** unit
        scaled = (0.3 - dynamics.input_mean[0]) / dynamics.input_std[0]
        head.biases[2].fill_(-1000 * scaled + weight.log())
    observation, action = torch.randn(rows, 4), torch.rand(rows, 2)
    following, _, terminated = dynamics.step(observation, action)
    assert torch.equal(terminated, following[:, 0] > 0.3)


@pytest.mark.parametrize(("ends", "weight"), [(1, math.sqrt(19)), (19, 1.0)])
def test_the_weight_for_rarity_does_not_make_terminations_likelier(
    ends: int, weight: float
) -> None:
    """States that tell nothing: the log-odds, less the weight, are those of the data.

    Of 20 rows so many end an episode; what is not rare has no weight.
    """
    torch.manual_seed(0)
    rows = 4000
    ended = torch.arange(rows) % 20 < ends
    zeros = torch.zeros(rows, 3)
    data = TensorDict(
        {
            "observation": zeros,
            "action": torch.rand(rows, 1),
            "reward": torch.rand(rows),
            "next": {"observation": zeros, "terminated": ended},
        },
        batch_size=[rows],
    )
    dynamics = Dynamics(3, 1, "learned", [8], [0.0, 0.0], networks=2, elites=1)
    fit(dynamics, dynamics.optimizer(), data)
    assert dynamics.termination_weight.item() == pytest.approx(weight, rel=0.1)
    with torch.no_grad():
        logit = dynamics.termination_logit(torch.zeros(2, 1, 3))
    odds = logit - dynamics.termination_weight.log()
    assert odds.flatten().tolist() == pytest.approx([math.log(ends / (20 - ends))] * 2, abs=0.5)


def test_a_task_of_ones_own_needs_nothing_but_its_name(tmp_path: Path) -> None:
    gymnasium.register("Mine-v0", Continuous_MountainCarEnv, max_episode_steps=100)
    try:
        values = {**TINY, **TINY_MODEL, "data.env_id": "Mine-v0"}
        run = execute("MBPO", tmp_path, CONF / "mbpo.yaml", values)
    finally:
        del gymnasium.registry["Mine-v0"]
    assert run.status == 0
    assert list(run.metrics["dynamics/termination_error"]) == [0, 20, 40]
