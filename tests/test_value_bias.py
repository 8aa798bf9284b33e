"""The bias of the critics' values against returns."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from lit_mbrl.algorithms import MPPVE, SAC
from lit_mbrl.held_out import collect
from lit_mbrl.value_bias import (
    before_any_cut,
    entropy_returns,
    horizon,
    monte_carlo_returns,
    normalised_bias,
    value_bias,
)

DONE = torch.tensor([[0, 0, 1, 0, 0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]).bool()


def last(row: int, step: int) -> int:
    """The last step of the episode that a step is in."""
    return next(t for t in range(step, 10) if DONE[row, t])


def test_monte_carlo_returns_are_those_of_a_naive_double_loop() -> None:
    reward = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    found = monte_carlo_returns(reward, DONE, 0.9)
    for row in range(2):
        for t in range(10):
            naive = sum(0.9 ** (u - t) * float(reward[row, u]) for u in range(t, last(row, t) + 1))
            assert found[row, t].item() == pytest.approx(naive)


@pytest.mark.parametrize("k", [1, 2, 3, 12])
def test_the_entropy_of_later_plans_is_that_of_a_naive_triple_loop(k: int) -> None:
    bonus = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    found = entropy_returns(bonus, DONE, 0.9, k)
    for row in range(2):
        for t in range(10):
            naive, end = 0.0, last(row, t)
            for plan in range(t + k, end + 1, k):
                for step in range(plan, min(plan + k, end + 1)):
                    naive += 0.9 ** (plan - t) * float(bonus[row, step])
            assert found[row, t].item() == pytest.approx(naive)


def test_states_count_whatever_becomes_of_their_episode() -> None:
    """It needs 4 steps to the end of collection, and to the limit if there is one."""
    rows, starts = before_any_cut(DONE, 4, None)
    assert list(zip(rows.tolist(), starts.tolist(), strict=True)) == [
        (copy, start) for copy in (0, 1) for start in range(7)
    ]
    rows, starts = before_any_cut(DONE, 4, 5)
    first = [0, 1, 3, 4]  # in the second step of an episode, 4 of its 5 are left
    assert starts[rows == 0].tolist() == first
    assert starts[rows == 1].tolist() == [0, 1]


def test_the_values_of_a_task_that_fails_at_random_have_no_bias() -> None:
    """The rows that end in time would be a selection of those that fail soon."""
    generator = torch.Generator().manual_seed(0)
    hazard, gamma = 1 / 300, 0.99
    done = torch.rand(2000, 1000, generator=generator) < hazard
    done[:, -1] = True
    returns = monte_carlo_returns(torch.ones(2000, 1000), done, gamma)
    rows, starts = before_any_cut(done, horizon(gamma, 3), None)
    true = 1 / (1 - gamma * (1 - hazard))
    assert float(returns[rows, starts].mean()) == pytest.approx(true, rel=0.02)


def test_the_bias_is_normalised_by_the_mean_return() -> None:
    value, returns = torch.tensor([1.0, 3.0]), torch.tensor([-3.0, -1.0])
    bias = normalised_bias(value, returns.double())  # 4 and 4, over 2
    assert bias == (2.0, 0.0)
    assert normalised_bias(torch.tensor([0.0, 4.0]), returns.double()) == (2.0, 0.5)


class Endless(gymnasium.Env[Any, Any]):
    """Pays 1 a step, and ends for good once its clock is at `end`, if there is an end."""

    def __init__(self, end: int | None, limit: int):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,))
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,))
        self.end, self.limit, self.clock = end, limit, 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.clock = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.clock += 1
        observation = np.full(1, self.clock, np.float32)
        return observation, 1.0, self.clock == self.end, self.clock == self.limit, {}


def agent_with(value: Callable[[Tensor], Tensor], plan_length: int = 1) -> Any:
    """An algorithm whose two critics know the value of each state, one of them far too high."""
    torch.manual_seed(0)
    if plan_length == 1:
        agent: Any = SAC(1, 1, hidden_sizes=[8], gamma=0.9)
    else:
        sizes: dict[str, Any] = {"hidden_sizes": [8], "dynamics_hidden_sizes": [8]}
        decay = {"dynamics_weight_decay": [0.0, 0.0]}
        agent = MPPVE(1, 1, "never", plan_length, gamma=0.9, **sizes, **decay)
    agent.critic.forward = lambda observation, plan: torch.stack(
        [value(observation[:, 0]), value(observation[:, 0]) + 100]
    )
    return agent


@pytest.mark.parametrize("plan_length", [1, 3])
def test_values_that_are_right_have_no_bias(plan_length: int) -> None:
    """Of a task that ends after 5 steps, and of one that never ends but for its time limit."""
    ends = agent_with(lambda clock: (1 - 0.9 ** (5 - clock)) / (1 - 0.9), plan_length)
    found = value_bias(ends, collect(ends, [Endless(5, 1000)], 200, seed=0), 0, 1000)
    assert found is not None
    assert found["plain"] == pytest.approx((0.0, 0.0), abs=1e-5)
    # 10 for ever: a limit taken for an end would make the states before it overestimated.
    forever = agent_with(lambda clock: torch.full_like(clock, 10.0), plan_length)
    found = value_bias(forever, collect(forever, [Endless(None, 100)], 200, seed=0), 0, 100)
    assert found is not None
    assert 0 <= found["plain"].mean < 0.01  # `TAIL` of it is cut off at most


def test_without_a_discount_nothing_is_said() -> None:
    agent = agent_with(lambda clock: 5 - clock)
    agent.gamma = 1.0
    assert value_bias(agent, collect(agent, [Endless(5, 1000)], 200, seed=0), 0, None) is None


def test_the_soft_bias_counts_the_entropy() -> None:
    agent = agent_with(lambda clock: torch.full_like(clock, 10.0))
    real = collect(agent, [Endless(None, 1000)], 1000, seed=0)
    found = value_bias(agent, real, 0, None)
    assert found is not None
    with torch.no_grad():
        entropy = -float(agent.actor.sample(real["observation"][0])[1].mean())
    # alpha is 1: rewards of 1 a step are joined by the entropy of each later one.
    expected = (10 - (10 + 9 * entropy)) / abs(10 + 9 * entropy)
    assert found["soft"].mean == pytest.approx(expected, abs=0.1)
    assert abs(found["soft"].mean - found["plain"].mean) > 0.2


def test_nothing_is_said_where_every_state_is_near_a_time_limit() -> None:
    agent = agent_with(lambda clock: clock)
    assert value_bias(agent, collect(agent, [Endless(None, 20)], 100, seed=0), 0, 20) is None
