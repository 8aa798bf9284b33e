"""Scores of plans in a model, and its sampled trajectories, against naive loops."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from planning_problems import PENDULUM, START
from torch import Tensor
from torch._dynamo import config as dynamo

from lit_mbrl.compilation import Compiler
from lit_mbrl.dynamics import Dynamics, FrozenNetworks
from lit_mbrl.envs.termination import inverted_pendulum
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.planning import CEM, ICEM, MPPI, ImaginedReturn, Problem, TerminalValue, policy_plans


def model(
    termination: str = PENDULUM,
    networks: int = 3,
    elites: int = 2,
    noise: float = 0.0,
    layers: int = 1,
) -> Dynamics:
    """Three networks that differ, with a deviation of `noise` in all they predict."""
    torch.manual_seed(0)
    decay = [0.0] * (layers + 1)
    dynamics = Dynamics(4, 1, termination, [8] * layers, decay, networks, elites)
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


def test_a_model_that_is_no_ensemble_has_nothing_but_its_own_step() -> None:
    class Still:
        def step(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return observation, action[:, 0], action[:, 0] > 2

    plans = torch.rand(2, 3, 4, 1)
    found = ImaginedReturn(Still(), "ts1", particles=2)(START, plans)
    torch.testing.assert_close(found, plans.sum((2, 3)))
    for sampling in ("ts_infinity", "mean", "elite"):
        with pytest.raises(ConfigurationError, match=r"ts1 for a model that is no ensemble"):
            ImaginedReturn(Still(), sampling, particles=1)  # type: ignore[arg-type]


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


def test_a_plan_whose_states_are_no_longer_defined_goes_on_in_the_middle() -> None:
    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        lost = torch.full_like(state, torch.nan)
        return lost, lost[:, 0], torch.zeros(len(state), dtype=torch.bool)

    found = policy_plans(lambda state: state[:, 1:2].tanh(), step, START, plans=2, horizon=3)
    assert (found[:, :, 0, 0] == START[:, 1:2].tanh()).all()
    assert (found[:, :, 1:] == 0).all()


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


@pytest.mark.parametrize(
    ("sampling", "termination", "precision"),
    [
        ("ts1", PENDULUM, "32-true"),
        ("ts_infinity", "learned", "32-true"),
        ("ts_infinity", PENDULUM, "bf16-mixed"),
        ("mean", PENDULUM, "32-true"),
        ("elite", PENDULUM, "32-true"),
    ],
)
def test_compiled_steps_score_the_same(
    sampling: Any, termination: str, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the networks and elites of now, in chunks of two sizes, each compiled once."""
    mixed = precision == "bf16-mixed"
    dynamics, compiler = model(termination, noise=0.3, elites=3, layers=1 + mixed), Compiler()
    compiler.enabled = True
    particles = 1 if sampling == "mean" else 6
    score = ImaginedReturn(
        dynamics,
        sampling,
        particles,
        gamma=0.9,
        reward=lambda s, a, f: f[..., 0] - a[..., 0],
        terminal=TerminalValue(lambda s, a: s[..., 1], 0),
        rows=7 * particles,  # of ten plans: seven, three
        autocast=lambda: torch.autocast("cpu", torch.bfloat16, mixed, cache_enabled=False),
    )
    compiled, plans = score.compiled(compiler), torch.rand(2, 5, 5, 1) * 2 - 1
    for again in (False, True):
        found = []
        for scorer in (score, compiled):
            torch.manual_seed(1)
            with dynamo.patch(error_on_recompile=again):
                found.append(scorer.returns(START, plans))
        tolerance = 0.02 if mixed else None
        torch.testing.assert_close(*found, atol=tolerance, rtol=tolerance)
        with torch.no_grad():  # what another fit does
            for weight in dynamics.ensemble.parameters():
                weight.mul_(1.3)
            dynamics.elites.copy_(dynamics.elites.roll(1))
            dynamics.set_input_scale(torch.randn(50, 5) + 1)
    printed = capsys.readouterr()
    assert printed.out.count("compiled a step of plans") == 2 and not printed.err
