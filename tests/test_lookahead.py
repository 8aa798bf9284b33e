"""A planner on top of an actor-critic."""

from typing import Any

import pytest
import torch
from planning_problems import PENDULUM, START, pets
from torch import Tensor

from lit_mbrl.algorithms import (
    MPPVE,
    PETS,
    POPLINA,
    POPLINP,
    S2VG,
    SAC,
    STEVE,
    SVG1,
    Agent,
    SVGInfinity,
)
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.planning import (
    ARC,
    Planner,
    Problem,
    RandomShooting,
    Solution,
    Start,
    lookahead,
    require_lookahead,
)


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


class Asked(Planner):
    """Keeps what it is asked."""

    def __call__(self, problem: Problem, state: Tensor, start: Start | None = None) -> Solution:
        self.problem = problem
        plan = state.new_zeros(len(state), self.horizon, problem.action_size)
        return Solution(plan, plan[:, 0, 0], plan, Start(plan, plan[:, None][:, :0]))


def svg1() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_sizes": [8], "dynamics_hidden_sizes": [8]}
    return SVG1(4, 1, "never", gamma=0.9, dynamics_weight_decay=[0.0, 0.0], **sizes)


@torch.no_grad()
@pytest.mark.parametrize(
    ("agent", "horizon", "tail"),
    [(actor_critic(1), 3, 1), (actor_critic(2), 4, 2), (svg1(), 2, 0)],
    ids=["MBPO's Q", "MPPVE's plan value", "SVG(1)'s V"],
)
def test_plans_are_worth_what_a_naive_loop_says(agent: Any, horizon: int, tail: int) -> None:
    """sum_{t < H - k} gamma^t r_t + gamma^{H - k} value, mean over the elites, without noise."""
    agent.dynamics.termination = lambda s, a, f: f[..., 1].abs() > 0.17
    for bound in (agent.dynamics.min_log_var, agent.dynamics.max_log_var):
        bound.fill_(-60.0)
    planner = Asked(horizon, 2)
    require_lookahead("planner", agent, planner)
    lookahead(agent, planner, 2)(START, torch.arange(2), torch.tensor([True, True]))
    plans = torch.rand(2, 8, horizon, 1) * 2 - 1
    expected, endings = torch.zeros(2, 8), []
    for b in range(2):
        for n, plan in enumerate(plans[b]):
            for elite in agent.dynamics.elites:
                state, total = START[b], 0.0
                ended = False
                for t, action in enumerate(plan[: horizon - tail]):
                    inputs = torch.cat([state, action]).view(1, 1, -1)
                    mean = agent.dynamics(inputs, elite.view(1))[0].flatten()
                    before, state = state, state + mean[:-1]
                    total += agent.gamma**t * float(mean[-1])
                    if ended := bool(agent.dynamics.termination(before, action, state)):
                        break
                if not ended:
                    rest = plan[horizon - tail :].unsqueeze(0)
                    value = (
                        agent.critic(state.unsqueeze(0), rest).amin()
                        if tail
                        else agent.value(state.unsqueeze(0))
                    )
                    total += agent.gamma ** (horizon - tail) * float(value)
                expected[b, n] += total / len(agent.dynamics.elites)
                endings.append(ended)
    assert 0 < sum(endings) < len(endings)
    torch.testing.assert_close(planner.problem.score(START, plans), expected)


@torch.no_grad()
def test_a_model_that_is_no_ensemble_is_looked_ahead_through_by_its_own_step() -> None:
    """S2VG's, whose deviations are taken away: five particles that are all the same."""
    torch.manual_seed(0)
    agent: Any = S2VG(4, 1, PENDULUM, hidden_sizes=[8], model_hidden_sizes=[8], gamma=0.9)
    agent.predict = lambda s, a: (s + 0.1 * a, s.sum(-1) + a[:, 0])
    planner = Asked(3, 2)
    require_lookahead("planner", agent, planner)
    lookahead(agent, planner, 1)(START[:1], torch.arange(1), torch.tensor([True]))
    plans = torch.rand(1, 6, 3, 1) * 0.2
    expected = []
    for plan in plans[0]:
        state, total = START[:1], 0.0
        for t, action in enumerate(plan[:2]):
            total += 0.9**t * float(state.sum() + action)
            state = state + 0.1 * action
        total += 0.9**2 * float(agent.critic(state, plan[2:].unsqueeze(0)).amin())
        expected.append(total)
    torch.testing.assert_close(planner.problem.score(START[:1], plans)[0], torch.tensor(expected))


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
        (SVGInfinity(4, 1, "never"), 3, "none for SVGInfinity"),
        (S2VG(4, 1, "learned"), 3, "none for S2VG"),
        (pets(), 3, "none for PETS"),
        (actor_critic(3), 2, "a horizon of at least 3"),
    ],
    ids=["SAC", "SVG(infinity)", "S2VG with no termination", "PETS", "MPPVE"],
)
def test_what_cannot_look_ahead_is_refused(agent: Agent, horizon: int, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        require_lookahead("planner", agent, ARC(horizon))
