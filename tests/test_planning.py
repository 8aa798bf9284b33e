"""Planners against the closed form, scores against naive loops, and what a behaviour remembers."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mbrl.algorithms import MPPVE, PETS, POPLINA, POPLINP, SAC, STEVE, Agent
from lit_mbrl.dynamics import Dynamics, FrozenNetworks
from lit_mbrl.envs.termination import inverted_pendulum
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.planning import (
    ARC,
    CEM,
    ICEM,
    MPPI,
    ImaginedReturn,
    Planner,
    PlanningBehaviour,
    Problem,
    RandomShooting,
    Solution,
    Start,
    TerminalValue,
    lookahead,
    policy_plans,
    require_lookahead,
)
from lit_mbrl.planning.icem import coloured_noise
from lit_mbrl.planning.planner import shifted, truncated_normal

PENDULUM = "lit_mbrl.envs.termination.inverted_pendulum"

# x' = F x + G a costs x Q x + R a^2 a step, and x Q x at the end.
F, G, Q, R = torch.tensor([[1, 0.1], [0, 1]]), torch.tensor([[0.0], [0.5]]), torch.eye(2), 0.1
STATES = torch.tensor([[0.5, -0.2], [0.3, 0.3], [-0.6, 0.1]])


def negative_cost(state: Tensor, plans: Tensor) -> Tensor:
    x = state.unsqueeze(1).expand(-1, plans.shape[1], -1)
    cost = torch.zeros(plans.shape[:2])
    for action in plans.unbind(2):
        cost = cost + ((x @ Q) * x).sum(-1) + R * action.square().sum(-1)
        x = x @ F.T + action @ G.T
    return -cost - ((x @ Q) * x).sum(-1)


def riccati_cost(state: Tensor, horizon: int) -> Tensor:
    """Of the best plan, whose actions all lie within [-1, 1] for `STATES`."""
    value = Q
    for _ in range(horizon):
        gain = (G.T @ value @ F) / (R + G.T @ value @ G)
        value = Q + F.T @ value @ (F - G @ gain)
    return ((state @ value) * state).sum(-1)


def resting(state: Tensor, plans: int, horizon: int) -> Tensor:
    """The plans of an actor that does nothing."""
    return torch.zeros(len(state), plans, horizon, 1)


LINEAR_QUADRATIC = Problem(negative_cost, 1, resting)


@pytest.mark.parametrize(
    ("planner", "share"),
    [
        (RandomShooting(horizon=5, candidates=2500), 0.1),
        (CEM(horizon=5, candidates=500, elites=50, iterations=5), 0.01),
        (CEM(horizon=5, candidates=500, elites=50, iterations=5, returns="best"), 0.01),
        (MPPI(horizon=5, candidates=500, iterations=5), 0.01),
        (ICEM(horizon=5, candidates=300, elites=10, iterations=5, noise_exponent=0.25), 0.01),
        (ARC(horizon=3, candidates=100, iterations=5, temperature=0.1), 0.01),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Planner) else "",
)
def test_a_linear_quadratic_plan_is_nearly_the_best(planner: Planner, share: float) -> None:
    """From three states at once, and again from the first solution."""
    torch.manual_seed(0)
    best = riccati_cost(STATES, planner.horizon)
    start = None
    for _ in range(2):
        solution = planner(LINEAR_QUADRATIC, STATES, start)
        assert solution.action.shape == (3, planner.horizon, 1)
        assert (solution.action.abs() <= 1).all()
        cost = -negative_cost(STATES, solution.action.unsqueeze(1)).squeeze(1)
        assert (cost >= best - 1e-5).all()
        assert (cost <= (1 + share) * best).all(), cost / best
        start = solution.start


@pytest.mark.parametrize(
    "planner", [RandomShooting(5), CEM(5), MPPI(5), ICEM(5), ARC(5)], ids=lambda p: type(p).__name__
)
def test_actions_keep_to_their_bounds(planner: Planner) -> None:
    """Where the best is far outside of them, plans go to the bound; so does every candidate."""
    torch.manual_seed(0)

    def score(state: Tensor, plans: Tensor) -> Tensor:
        assert plans.abs().max() <= 1
        return 10 * plans.sum((2, 3))

    solution = planner(Problem(score, 2, lambda s, n, h: torch.zeros(len(s), n, h, 2)), STATES)
    mean = float(solution.action.mean())
    assert mean > (0.2 if isinstance(planner, RandomShooting) else 0.4), mean
    assert solution.score.shape == (3,)
    assert solution.sample.shape == solution.action.shape


def test_the_best_candidate_and_its_score_are_returned_together() -> None:
    torch.manual_seed(0)
    for planner in (RandomShooting(4), CEM(4, returns="best"), ICEM(4)):
        solution = planner(LINEAR_QUADRATIC, STATES)
        score = negative_cost(STATES, solution.action.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(solution.score, score)


def test_each_search_of_a_batch_is_its_own() -> None:
    """Swapping the states swaps the solutions, up to the candidates that are drawn."""
    torch.manual_seed(0)
    planner = CEM(horizon=4, candidates=2000, elites=100)
    forth = planner(LINEAR_QUADRATIC, STATES).action
    back = planner(LINEAR_QUADRATIC, STATES.flip(0)).action.flip(0)
    torch.testing.assert_close(forth, back, atol=0.02, rtol=0)


def test_cem_is_the_naive_loop() -> None:
    """Elites by sorting, moments over them alone, and a tenth of the old ones kept."""
    planner = CEM(horizon=3, candidates=40, elites=7, iterations=3, momentum=0.1)
    torch.manual_seed(1)
    found = planner(LINEAR_QUADRATIC, STATES[:1])
    torch.manual_seed(1)
    mean, variance = torch.zeros(3, 1), torch.full((3, 1), 0.25)
    for _ in range(3):
        plans = truncated_normal(mean[None], variance.sqrt()[None], 40)
        scores = negative_cost(STATES[:1], plans)[0].tolist()
        order = sorted(range(40), key=lambda i: -scores[i])[:7]
        elites = torch.stack([plans[0, i] for i in order])
        mean = 0.1 * mean + 0.9 * elites.mean(0)
        variance = 0.1 * variance + 0.9 * elites.var(0, correction=0)
    torch.testing.assert_close(found.action[0], mean)
    assert float(found.score) == pytest.approx(sum(scores[i] for i in order) / 7)
    assert any(torch.allclose(found.sample[0], plans[0, i]) for i in order)


@pytest.mark.parametrize("planner", [MPPI(3, 30, 1, 0.3, 0.5), ARC(3, 30, 1, 0.2, 0.5)])
def test_weights_are_exponential_in_the_score(planner: Planner) -> None:
    """One iteration against Eq. 8 of LOOP, written out."""
    seen: list[tuple[Tensor, Tensor]] = []

    def score(state: Tensor, plans: Tensor) -> Tensor:
        seen.append((plans, negative_cost(state, plans)))
        return seen[-1][1]

    torch.manual_seed(0)
    solution = planner(Problem(score, 1, resting), STATES)
    ((plans, scores),) = seen
    for b in range(3):
        weights = [math.exp(float(s) / 0.5) for s in scores[b]]
        mean = sum(w * p for w, p in zip(weights, plans[b], strict=True)) / sum(weights)
        torch.testing.assert_close(solution.action[b], mean)


def test_icem_keeps_elites_within_a_search_and_for_the_next() -> None:
    populations: list[Tensor] = []

    def score(state: Tensor, plans: Tensor) -> Tensor:
        populations.append(plans)
        return negative_cost(state, plans)

    torch.manual_seed(0)
    planner = ICEM(horizon=4, candidates=50, elites=10, iterations=3, kept_share=0.3, decay=1.25)
    first = planner(Problem(score, 1), STATES)
    # 50, 40 and 32 are drawn; 3 are kept from each iteration to the next; the mean comes last.
    assert [p.shape[1] for p in populations] == [50, 43, 36]
    assert first.start.kept.shape == (3, 3, 4, 1)
    torch.testing.assert_close(first.start.kept[:, 0, :3], first.action[:, 1:])
    torch.testing.assert_close(first.start.kept[:, 0, 3], first.action[:, 3])  # repeated
    planner(Problem(score, 1), STATES, first.start)
    assert populations[3].shape[1] == 53
    torch.testing.assert_close(populations[3][:, 50:], first.start.kept)
    # The search goes on from the mean, which was the first one's last candidate but for an update.
    torch.testing.assert_close(
        populations[3][:, :50].mean(1), first.start.mean, atol=0.35, rtol=0.0
    )


def test_coloured_noise_has_unit_variance_and_its_colour() -> None:
    torch.manual_seed(0)
    frequency = torch.fft.rfftfreq(32)[1:-1]
    for exponent in (0.0, 1.0, 2.0):
        noise = coloured_noise(torch.zeros(2, 32, 3), 4000, exponent)
        assert noise.shape == (2, 4000, 32, 3)
        torch.testing.assert_close(noise.std((0, 1)), torch.ones(32, 3), atol=0.03, rtol=0)
        power = torch.fft.rfft(noise, dim=2).abs().square().mean((0, 1, 3))[1:-1]
        slope = power.log().diff().sum() / frequency.log().diff().sum()
        assert float(slope) == pytest.approx(-exponent, abs=0.03)
    for horizon in (1, 2, 3):
        noise = coloured_noise(torch.zeros(1, horizon, 1), 20_000, 2.0)
        torch.testing.assert_close(noise.std(1), torch.ones(1, horizon, 1), atol=0.03, rtol=0)


def test_a_truncated_normal_is_cut_off_at_two_deviations_and_the_bounds() -> None:
    torch.manual_seed(0)
    mean = torch.tensor([[[0.0]], [[0.9]], [[1.0]]])
    plans = truncated_normal(mean, torch.full((3, 1, 1), 0.3), 50_000)
    assert float(plans[0].abs().max()) == pytest.approx(0.6, abs=0.001)
    # A standard normal that is cut off at two deviations has a deviation of 0.880.
    assert float(plans[0].std()) == pytest.approx(0.880 * 0.3, rel=0.01)
    assert float(plans[1].min()) >= 0.8 and float(plans[1].max()) <= 1
    assert (plans[2] == 1).all()


def test_arc_with_a_peaked_prior_returns_the_actors_plan() -> None:
    """beta = 1 and a deterministic actor: no score can move it."""
    actors = torch.rand(3, 1, 4, 1) * 2 - 1
    problem = Problem(negative_cost, 1, lambda s, n, h: actors.expand(-1, n, -1, -1))
    solution = ARC(horizon=4, actor_share=1.0, temperature=0.01)(problem, STATES)
    torch.testing.assert_close(solution.action, actors.squeeze(1))
    torch.testing.assert_close(solution.sample, actors.squeeze(1))


def test_arc_with_an_infinite_temperature_returns_the_priors_mean() -> None:
    """beta of the actor's plans, and the rest of the last step's."""
    torch.manual_seed(0)
    actors, last = torch.full((3, 1, 4, 1), 0.5), torch.full((3, 4, 1), -0.2)
    problem = Problem(negative_cost, 1, lambda s, n, h: actors.expand(-1, n, -1, -1))
    start = Start(last, last[:, None][:, :0])
    planner = ARC(horizon=4, candidates=20_000, actor_share=0.3, temperature=1e9, prior_std=0.2)
    solution = planner(problem, STATES, start)
    prior = 0.3 * 0.5 + 0.7 * -0.2
    torch.testing.assert_close(solution.action, torch.full((3, 4, 1), prior), atol=0.01, rtol=0)


# --- scores


def model(
    termination: str = PENDULUM, networks: int = 3, elites: int = 2, noise: float = 0.0
) -> Dynamics:
    """Three networks that differ, with a deviation of `noise` in all they predict."""
    torch.manual_seed(0)
    dynamics = Dynamics(4, 1, termination, [8], [0.0, 0.0], networks, elites)
    for parameter in dynamics.ensemble.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    log_variance = 2 * math.log(noise) if noise else -60.0
    torch.nn.init.constant_(dynamics.max_log_var, log_variance)
    torch.nn.init.constant_(dynamics.min_log_var, log_variance - 20)
    with torch.no_grad():
        dynamics.ensemble.biases[-1][..., 5:] += 20  # all the noise there may be
    dynamics.set_input_scale(torch.randn(100, 5) * torch.tensor([1, 2, 3, 4, 5]) + 1)
    dynamics.elites.copy_(torch.arange(networks)[-elites:])
    return dynamics


def predicted(
    dynamics: Dynamics, member: int, state: Tensor, action: Tensor
) -> tuple[Tensor, float]:
    """The mean next state [S] and reward of one network."""
    inputs = torch.cat([state, action]).view(1, 1, -1)
    mean = dynamics(inputs, torch.tensor([member]))[0][0, 0]
    return state + mean[:-1], float(mean.detach()[-1])


def naive_return(dynamics: Dynamics, path: Any, state: Tensor, plan: Tensor, gamma: float) -> float:
    """Of a plan [H, A], step t by the network path[t], or by the mean of a list of them."""
    total = 0.0
    for t, action in enumerate(plan):
        members = path[t] if isinstance(path[t], list) else [path[t]]
        steps = [predicted(dynamics, member, state, action) for member in members]
        following = torch.stack([step[0] for step in steps]).mean(0)
        total += gamma**t * sum(step[1] for step in steps) / len(steps)
        if inverted_pendulum(state, action, following):
            break
        state = following
    return total


START = torch.tensor([[0.0, 0.05, 0.0, 0.0], [0.1, -0.15, 0.0, 0.0]])


@pytest.fixture
def plans() -> Tensor:
    torch.manual_seed(3)
    return torch.rand(2, 6, 3, 1) * 2 - 1


def each(plans: Tensor, value: Callable[[Tensor, Tensor], Any]) -> Tensor:
    """A value of each state and plan, one at a time."""
    return torch.tensor([[value(START[b], plan) for plan in plans[b]] for b in range(2)])


@torch.no_grad()
def test_particles_that_keep_their_network_have_the_naive_return(plans: Tensor) -> None:
    """TS-infinity; some of the particles end before the horizon, and some do not."""
    dynamics = model()
    by_network = [
        each(plans, lambda s, p, m=m: naive_return(dynamics, [m] * 3, s, p, 0.9)) for m in (1, 2)
    ]
    score = ImaginedReturn(dynamics, "ts_infinity", particles=4, gamma=0.9)
    returns = score.returns(START, plans)
    torch.testing.assert_close(returns[..., 0], by_network[0])
    torch.testing.assert_close(returns[..., 3], by_network[1])
    torch.testing.assert_close(score(START, plans), (by_network[0] + by_network[1]) / 2)
    never = naive_lengths(dynamics, plans)
    assert 0 < sum(length == 3 for length in never) < len(never)


def naive_lengths(dynamics: Dynamics, plans: Tensor) -> list[int]:
    lengths = []
    for b, n, m in itertools.product(range(2), range(plans.shape[1]), (1, 2)):
        state, length = START[b], 0
        for action in plans[b, n]:
            following = predicted(dynamics, m, state, action)[0]
            length += 1
            if inverted_pendulum(state, action, following):
                break
            state = following
        lengths.append(length)
    return lengths


@torch.no_grad()
def test_particles_that_change_networks_take_every_path(plans: Tensor) -> None:
    """TS1: each particle's return is that of a path, and all eight paths are taken."""
    dynamics = model("never")
    score = ImaginedReturn(dynamics, "ts1", particles=200, gamma=0.9)
    returns = score.returns(START, plans)
    paths = list(itertools.product((1, 2), repeat=3))
    for b, n in ((0, 0), (1, 4)):
        known = torch.tensor(
            [unended_return(dynamics, path, START[b], plans[b, n]) for path in paths]
        )
        gap = (returns[b, n].unsqueeze(-1) - known).abs()
        assert gap.amin(-1).max() < 1e-5
        assert set(gap.argmin(-1).tolist()) == set(range(8))


def unended_return(dynamics: Dynamics, path: Any, state: Tensor, plan: Tensor) -> float:
    total = 0.0
    for t, action in enumerate(plan):
        state, reward = predicted(dynamics, path[t], state, action)
        total += 0.9**t * reward
    return total


@torch.no_grad()
def test_the_mean_of_the_networks_has_the_naive_return(plans: Tensor) -> None:
    dynamics = model(noise=0.5)  # of which the mean knows nothing
    score = ImaginedReturn(dynamics, "mean", particles=1, gamma=0.9)
    naive = each(plans, lambda s, p: naive_return(dynamics, [[1, 2]] * 3, s, p, 0.9))
    torch.testing.assert_close(score(START, plans), naive)


@torch.no_grad()
def test_a_random_elite_is_one_for_all_plans_of_a_call(plans: Tensor) -> None:
    dynamics = model()
    by_network = [
        each(plans, lambda s, p, m=m: naive_return(dynamics, [m] * 3, s, p, 0.9)) for m in (1, 2)
    ]
    score = ImaginedReturn(dynamics, "elite", particles=2, gamma=0.9, rows=4)
    drawn = set()
    for _ in range(20):
        found = score(START, plans)
        matches = [bool(torch.allclose(found, known)) for known in by_network]
        assert sum(matches) == 1
        drawn.add(matches.index(True))
    assert drawn == {0, 1}


@pytest.mark.parametrize("sampling", ["ts1", "ts_infinity", "mean", "elite"])
def test_noise_is_that_of_the_networks(sampling: Any) -> None:
    """The spread of one step's rewards over particles; a mean has none."""
    dynamics = model("never", noise=0.5)
    particles = 1 if sampling == "mean" else 4000
    score = ImaginedReturn(dynamics, sampling, particles)
    returns = score.returns(START, torch.zeros(2, 1, 1, 1))
    if sampling == "mean":
        assert torch.equal(returns, score.returns(START, torch.zeros(2, 1, 1, 1)))
        return
    halves = [predicted(dynamics, m, START[0], torch.zeros(1))[1] for m in (1, 2)]
    between = 0.0 if sampling == "elite" else (halves[0] - halves[1]) ** 2 / 4
    assert float(returns[0, 0].var()) == pytest.approx(0.25 + between, rel=0.1)


@pytest.mark.parametrize("termination", [PENDULUM, "learned"])
def test_frozen_networks_step_as_the_ensemble_does(termination: str) -> None:
    """With the same noise; also where the variance lies between its bounds."""
    dynamics = model(termination, noise=0.3)
    torch.nn.init.constant_(dynamics.min_log_var, -4.0)
    with torch.no_grad():
        dynamics.ensemble.biases[-1][..., 5:] -= 23
    members = torch.tensor([2, 0])
    observation, action = torch.randn(2, 50, 4), torch.rand(2, 50, 1) * 2 - 1
    torch.manual_seed(0)
    with torch.no_grad():
        expected = dynamics.step_with(members, observation, action)
    torch.manual_seed(0)
    found = FrozenNetworks(dynamics, members).step(observation, action)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])
    assert torch.equal(found[2], expected[2])
    assert 0 < int(found[2].sum()) < 100


def test_chunks_change_nothing(plans: Tensor) -> None:
    dynamics = model()
    whole = ImaginedReturn(dynamics, "ts_infinity", 4)(START, plans)
    for rows in (1, 12, 40):
        parts = ImaginedReturn(dynamics, "ts_infinity", 4, rows=rows)(START, plans)
        torch.testing.assert_close(parts, whole)


@torch.no_grad()
@pytest.mark.parametrize("tail", [0, 1, 2])
def test_a_terminal_value_follows_the_imagined_steps(tail: int, plans: Tensor) -> None:
    """V(s_3), Q(s_2, a_2) or Q(s_1, a_1, a_2), discounted, and only where the particle is alive."""
    dynamics = model()

    def value(observation: Tensor, rest: Tensor) -> Tensor:
        assert rest.shape[1:] == (tail, 1)
        return 10 + observation.sum(-1) + 3 * rest.sum((1, 2))

    score = ImaginedReturn(dynamics, "ts_infinity", 2, 0.9, None, TerminalValue(value, tail))

    def naive(state: Tensor, plan: Tensor, member: int) -> float:
        total = 0.0
        for t in range(3 - tail):
            following, reward = predicted(dynamics, member, state, plan[t])
            total += 0.9**t * reward
            if inverted_pendulum(state, plan[t], following):
                return total
            state = following
        return total + 0.9 ** (3 - tail) * float(value(state[None], plan[None, 3 - tail :]))

    known = sum(each(plans, lambda s, p, m=m: naive(s, p, m)) for m in (1, 2)) / 2
    torch.testing.assert_close(score(START, plans), known)


def test_a_known_reward_takes_the_place_of_the_models(plans: Tensor) -> None:
    dynamics = model("never")
    score = ImaginedReturn(dynamics, reward=lambda s, a, f: 2 * a[..., 0], particles=2)
    torch.testing.assert_close(score(START, plans), 2 * plans.sum((2, 3)))


def test_what_is_not_finite_is_worth_the_least(plans: Tensor) -> None:
    """A plan whose prediction is undefined is never an elite, and undefines no other's weight."""
    dynamics = model("never")

    def reward(state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return torch.where(action[..., 0] > 0, torch.nan, action[..., 0])

    score = ImaginedReturn(dynamics, reward=reward, particles=2)
    assert score(START, plans).isfinite().all()
    for planner in (CEM(3), MPPI(3), ICEM(3)):
        assert (planner(Problem(score, 1), START).action < 0.2).all()
    lost = ImaginedReturn(dynamics, reward=lambda s, a, f: a[..., 0] * torch.nan, particles=2)
    assert MPPI(3)(Problem(lost, 1), START).action.isfinite().all()


def test_a_policys_plans_are_its_actions_in_imagination() -> None:
    dynamics = model("never", networks=2, elites=1)

    def act(observation: Tensor) -> Tensor:
        return observation[:, 1:2].tanh()

    found = policy_plans(act, dynamics.step, START, plans=2, horizon=3)
    state = START[1]
    for t in range(3):
        action = act(state[None])[0]
        torch.testing.assert_close(found[1, 0, t], action)
        torch.testing.assert_close(found[1, 1, t], action)
        with torch.no_grad():
            state = predicted(dynamics, 1, state, action)[0]


# --- behaviours


def test_plans_are_shifted_by_a_step() -> None:
    plans = torch.arange(6.0).view(2, 3, 1)
    assert shifted(plans).squeeze(-1).tolist() == [[1, 2, 0], [4, 5, 0]]
    assert shifted(plans, repeat=True).squeeze(-1).tolist() == [[1, 2, 2], [4, 5, 5]]
    assert shifted(plans.unsqueeze(0))[0, 1].squeeze(-1).tolist() == [4, 5, 0]


@pytest.mark.parametrize("returns", ["mean", "best"])
def test_the_next_cem_starts_from_the_mean_whatever_is_returned(returns: Any) -> None:
    candidates: list[Tensor] = []

    def score(state: Tensor, plans: Tensor) -> Tensor:
        candidates.append(plans)
        return negative_cost(state, plans)

    torch.manual_seed(0)
    planner = CEM(4, candidates=50, elites=10, iterations=1, momentum=0.0, returns=returns)
    found = planner(Problem(score, 1), STATES)
    best = negative_cost(STATES, candidates[0]).topk(10, -1).indices
    for b, indices in enumerate(best):
        mean = candidates[0][b][indices].mean(0)
        torch.testing.assert_close(found.start.mean[b, :3], mean[1:])
        assert found.start.mean[b, 3] == 0


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


def pets(**changed: Any) -> PETS:
    sizes: dict[str, Any] = {"dynamics_hidden_sizes": [8], "dynamics_weight_decay": [0.0, 0.0]}
    given = {"planner": CEM(4, 20, 5, 2), "particles": 5, **sizes, **changed}
    return PETS(4, 1, PENDULUM, **given)


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


# --- a planner on top of an actor-critic


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


# --- refusals


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
