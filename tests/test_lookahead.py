"""A planner on top of an actor-critic."""

from typing import Any

import pytest
import torch
from planning_problems import PENDULUM, START, pets

from lit_mbrl.algorithms import MPPVE, PETS, POPLINA, POPLINP, SAC, STEVE, Agent
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.planning import ARC, RandomShooting, lookahead, require_lookahead


def actor_critic(plan_length: int) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_sizes": [8], "dynamics_hidden_sizes": [8]}
    decay = {"dynamics_weight_decay": [0.0, 0.0]}
    return MPPVE(4, 1, PENDULUM, plan_length, gamma=0.9, **sizes, **decay)


@pytest.mark.parametrize("plan_length", [1, 2])
def test_a_planner_on_top_searches_by_the_algorithms_own_value(plan_length: int) -> None:
    """With a horizon of k nothing is imagined: the plan that the smaller critic likes best."""
    agent = actor_critic(plan_length)
    torch.manual_seed(0)
    behaviour = lookahead(agent, RandomShooting(plan_length, 4000), copies=2)
    found = behaviour(START, torch.arange(2), torch.tensor([True, True]))
    steps = torch.linspace(-1, 1, 41)
    grid = torch.cartesian_prod(*[steps] * plan_length).view(-1, plan_length, 1)
    for b in range(2):
        with torch.no_grad():
            value = agent.critic(START[b].expand(len(grid), -1), grid).amin(0)
        assert float(found[b]) == pytest.approx(float(grid[value.argmax(), 0]), abs=0.1)


def test_a_planner_on_top_of_the_actor_can_be_the_actor() -> None:
    agent = actor_critic(1)
    behaviour = lookahead(agent, ARC(3, 20, actor_share=1.0, iterations=1), copies=2)
    found = behaviour(START, torch.arange(2), torch.tensor([True, True]))
    torch.testing.assert_close(found, agent.actor.mode(START).detach())


def test_a_deterministic_policy_can_be_looked_ahead_from() -> None:
    """STEVE's, with four critics: ARC around the actor alone proposes what it does."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_sizes": [8], "dynamics_hidden_sizes": [8]}
    agent = STEVE(4, 1, PENDULUM, dynamics_weight_decay=[0.0, 0.0], **sizes)
    planner = ARC(3, 20, actor_share=1.0, iterations=1)
    require_lookahead("planner", agent, planner)
    found = lookahead(agent, planner, copies=2)(START, torch.arange(2), torch.tensor([True, True]))
    torch.testing.assert_close(found, agent.actor.mode(START).detach())


@pytest.mark.parametrize("algorithm", [PETS, POPLINA, POPLINP])
def test_a_planner_that_asks_for_a_policy_is_refused_where_there_is_none(algorithm: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^model\.planner: .*ARC.* no policy's plans"):
        algorithm(4, 1, PENDULUM, ARC())


@pytest.mark.parametrize(
    ("agent", "horizon", "words"),
    [
        (SAC(4, 1), 3, "none for SAC"),
        (pets(), 3, "none for PETS"),
        (actor_critic(3), 2, "a horizon of at least 3"),
    ],
    ids=["SAC", "PETS", "MPPVE"],
)
def test_what_cannot_look_ahead_is_refused(agent: Agent, horizon: int, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        require_lookahead("planner", agent, ARC(horizon))
