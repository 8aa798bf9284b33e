"""Policies that plan at every step, and what they remember."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from planning_problems import LINEAR_QUADRATIC, START, pets
from small_agents import MODEL
from torch import Tensor

from lit_mbrl.algorithms import LOOP, SAC, Agent
from lit_mbrl.planning import ARC, Planner, PlanningBehaviour, Problem, Solution, Start


class Counting(Planner):
    """Plans what it started from, plus one: it counts the steps of each copy's episode."""

    def __call__(self, problem: Problem, state: Tensor, start: Start | None = None) -> Solution:
        past = torch.zeros(len(state), self.horizon, 1) if start is None else start.mean
        plan = (past[:, :1] + 1).expand(-1, self.horizon, -1)
        next_start = Start(plan, plan[:, None][:, :0])
        return Solution(plan, torch.zeros(len(state)), plan + 100, next_start)


def counting_behaviour(explore: bool = False) -> PlanningBehaviour:
    planner = Counting(horizon=3, candidates=2)
    return PlanningBehaviour(lambda s, start: planner(LINEAR_QUADRATIC, s, start), 3, explore)


def acted(behaviour: PlanningBehaviour, copies: list[int], begins: list[bool]) -> list[float]:
    rows = torch.tensor(copies)
    return behaviour(torch.zeros(len(rows), 2), rows, torch.tensor(begins)).squeeze(1).tolist()


def test_a_behaviour_remembers_each_copys_plan_until_its_episode_ends() -> None:
    behaviour = counting_behaviour()
    assert acted(behaviour, [0, 1, 2], [True] * 3) == [1, 1, 1]
    assert acted(behaviour, [0, 1, 2], [False] * 3) == [2, 2, 2]
    assert acted(behaviour, [2, 0], [False, False]) == [3, 3]
    assert acted(behaviour, [0, 1, 2], [True, False, False]) == [1, 3, 4]
    assert acted(counting_behaviour(explore=True), [1], [True]) == [101]


def test_a_behaviour_goes_on_from_a_snapshot() -> None:
    behaviour, other = counting_behaviour(), counting_behaviour()
    other.restore(behaviour.snapshot())  # it has not acted yet
    assert acted(other, [1], [True]) == [1]
    acted(behaviour, [0, 1], [True] * 2)
    other.restore(behaviour.snapshot())
    assert acted(other, [0, 1, 2], [False] * 3) == [2, 2, 1]


def test_a_planning_algorithm_starts_from_its_last_plan() -> None:
    starts: list[Start | None] = []
    agent = pets()
    plan = agent.planner

    def recorded(problem: Problem, state: Tensor, start: Start | None = None) -> Solution:
        starts.append(start)
        return plan(problem, state, start)

    agent.planner = recorded  # type: ignore[assignment]
    behaviour = agent.behaviour(copies=2)
    copies, fresh = torch.arange(2), torch.tensor([False, True])
    first = behaviour(START, copies, torch.tensor([True, True]))
    second = behaviour(START, copies, fresh)
    assert first.shape == second.shape == (2, 1)
    assert starts[0] is None and starts[1] is not None
    assert starts[1].mean[0, :3].abs().sum() > 0
    assert starts[1].mean[1].abs().sum() == 0


@pytest.mark.parametrize("collects", [False, True])
@pytest.mark.parametrize("algorithm", ["SAC", "PETS", "LOOP"])
def test_only_the_collectors_steps_may_be_a_graph(algorithm: str, collects: bool) -> None:
    """Not those of who explores beside it, as value biases do, were it in a single copy."""
    agents: dict[str, Callable[[], Agent]] = {
        "SAC": lambda: SAC(4, 1, [8]),
        "PETS": pets,
        "LOOP": lambda: LOOP(4, 1, "never", planner=ARC(3, 10, iterations=2), **MODEL),  # type: ignore[arg-type]
    }
    agent, captured = agents[algorithm](), []

    def capture(name: str, function: Callable[..., Any], *inputs: Any) -> Any:
        captured.append(name)
        return function(*inputs)

    agent.compiler.capture = capture  # type: ignore[method-assign]
    here, begins = torch.zeros(1, dtype=torch.long), torch.tensor([True])
    observation = torch.randn(1, 4)
    torch.manual_seed(1)
    action = agent.behaviour(1, collects=collects)(observation, here, begins)
    torch.manual_seed(1)
    assert torch.equal(action, agent.behaviour(1)(observation, here, begins))
    assert len(captured) == collects
