"""MPDP: its model error, its objective against loops and closed forms, and its special case SAC."""

import math

import pytest
import torch
from linear_quadratic import (
    GAMMA,
    GaussianActor,
    LinearActor,
    Quadratic,
    System,
    policy_gradients,
    soft_value,
)
from pytorch_lightning import Trainer
from tensordict import TensorDict
from torch import Tensor, nn
from torch.distributions import Normal

from lit_mbrl.algorithms import MPDP, SAC
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.objectives import one_vs_rest

S, A, B = 3, 2, 12
SMALL = {
    "hidden_sizes": [16, 16],
    "dynamics_hidden_sizes": [8],
    "dynamics_weight_decay": [0.0, 0.0],
    "dynamics_networks": 3,
    "dynamics_elites": 2,
}


def make(max_horizon: int = 4, termination: str = "never", **kwargs: object) -> MPDP:
    torch.manual_seed(0)
    return MPDP(S, A, termination, max_horizon=max_horizon, **{**SMALL, **kwargs})  # type: ignore[arg-type]


def transitions(batch: int = B) -> TensorDict:
    return TensorDict(
        {
            "observation": torch.randn(batch, S),
            "action": torch.rand(batch, 1, A) * 2 - 1,
            "reward": torch.randn(batch, 1),
            "next": {"observation": torch.randn(batch, S), "terminated": torch.rand(batch) < 0.3},
        },
        batch_size=[batch],
    )


def assert_same_gradient(found: Tensor, expected: Tensor, module: nn.Module) -> None:
    parameters = list(module.parameters())
    ours, theirs = (torch.autograd.grad(loss, parameters) for loss in (found, expected))
    assert any(part.norm() > 1e-3 for part in theirs)
    for part, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-3, atol=1e-5)


class Model(nn.Module):
    """A stand-in for the dynamics: s' = s + W a, r = s_0, ended where s'_1 > 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(S, A)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        following = state + action @ self.weight.T
        return following, state[:, 0], following[:, 1] > 1


class Still(nn.Module):
    """A stand-in for a policy, without noise."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(S, A)

    def sample(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(state).tanh(), state.sum(-1)


def error_of(state: Tensor, action: Tensor) -> Tensor:
    """A stand-in for the model error."""
    return state[:, 2] + action.sum(1)


def simple(max_horizon: int = 4, **kwargs: object) -> MPDP:
    agent = make(max_horizon, threshold=0.5, beta=0.7, alpha=0.3, **kwargs)
    agent.dynamics = Model()  # type: ignore[assignment]
    agent.model_error = error_of  # type: ignore[method-assign]
    return agent


def ensemble(spread: float) -> tuple[Tensor, Tensor]:
    """Means and log-variances of 5 networks at 3 places in 2 dimensions."""
    torch.manual_seed(0)
    mean = 1 + spread * torch.randn(5, 3, 2, dtype=torch.float64)
    return mean, 0.5 * torch.randn(5, 3, 2, dtype=torch.float64)


@pytest.mark.parametrize("apart", [0.0, 30.0, 70.0, 1000.0])
def test_a_network_far_off_makes_the_model_error_large_and_not_undefined(apart: float) -> None:
    """In float32, where the spread of the others is lost beside it; and such a plan stops."""
    torch.manual_seed(0)
    mean = 0.01 * torch.randn(7, 200, 5)
    mean[3] += apart
    error = one_vs_rest(mean, torch.full_like(mean, -10.0))
    assert error.isfinite().all()
    assert apart == 0 or (error > 1e3).all()


def test_a_plan_stops_where_the_model_error_is_undefined() -> None:
    agent = make(4, threshold=100.0)
    agent.model_error = lambda state, action: torch.full((len(state),), math.nan)  # type: ignore[method-assign]
    loss, _, length, _ = agent.actor_loss(torch.randn(B, S))
    assert length == 1 and loss.isfinite()


def test_a_plan_that_stops_at_a_huge_model_error_leaves_the_gradient_defined() -> None:
    """Though the error itself, the exponential of what is compared, is beyond a float."""
    agent = make(4, threshold=100.0)
    real = agent.model_error

    def huge_at_first(state: Tensor, action: Tensor) -> Tensor:
        error = real(state, action)
        if len(state) < B:
            return error
        return torch.cat([200 + action[:1].square().sum(1), error[1:]])

    agent.model_error = huge_at_first  # type: ignore[method-assign]
    loss, *_ = agent.actor_loss(torch.randn(B, S))
    gradient = torch.autograd.grad(loss, list(agent.actor.parameters()))
    assert loss.isfinite() and all(part.isfinite().all() for part in gradient)
    assert any(part.norm() > 0 for part in gradient)


def test_model_error_is_the_divergence_to_the_moments_of_the_others() -> None:
    """Eq. 8 by loops, with torch's own divergence of Gaussians."""
    mean, log_var = ensemble(1.0)
    found = one_vs_rest(mean, log_var)
    for place in range(3):
        total = 0.0
        for i in range(5):
            for d in range(2):
                rest = [j for j in range(5) if j != i]
                means = mean[rest, place, d]
                variance = (log_var[rest, place, d].exp() + means**2).mean() - means.mean() ** 2
                p = Normal(mean[i, place, d], (0.5 * log_var[i, place, d]).exp())
                q = Normal(means.mean(), variance.sqrt())
                total += torch.distributions.kl_divergence(p, q).item()
        assert found[place].item() == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize(("spread", "gap"), [(0.3, 0.1), (1.0, 0.3)])
def test_model_error_against_monte_carlo(spread: float, gap: float) -> None:
    """Exact to the Gaussian with the mixture's moments; near the mixture's own divergence."""
    mean, log_var = ensemble(spread)
    std, samples = (0.5 * log_var).exp(), 200_000
    moments, mixture = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for i in range(5):
        rest = [j for j in range(5) if j != i]
        x = mean[i] + std[i] * torch.randn(samples, 3, 2, dtype=torch.float64)
        own = Normal(mean[i], std[i]).log_prob(x).sum(-1)
        middle = mean[rest].mean(0)
        variance = (std[rest] ** 2 + (mean[rest] - middle) ** 2).mean(0)
        moments += (own - Normal(middle, variance.sqrt()).log_prob(x).sum(-1)).mean(0)
        each = torch.stack([Normal(mean[j], std[j]).log_prob(x).sum(-1) for j in rest])
        mixture += (own - each.logsumexp(0) + math.log(4)).mean(0)
    found = one_vs_rest(mean, log_var)
    assert torch.allclose(found, moments, rtol=0.03, atol=0.02)
    assert torch.allclose(found, mixture, rtol=gap, atol=0.1)


def test_model_error_is_zero_for_one_opinion_and_exact_for_small_differences() -> None:
    mean, log_var = torch.randn(1, 4, 2).expand(5, -1, -1), torch.randn(1, 4, 2).expand(5, -1, -1)
    assert one_vs_rest(mean, log_var).abs().max() < 1e-5
    # Predictions near 100 that differ by 0.001, with deviations of that size, in float32.
    offsets = 1e-3 * torch.randn(5, 4, 2, dtype=torch.float64)
    small = torch.full((5, 4, 2), 2 * math.log(1e-3), dtype=torch.float64)
    exact = one_vs_rest(offsets, small)
    single = one_vs_rest((10 + offsets).float(), small.float())
    assert torch.allclose(single.double(), exact, rtol=0.02)


def test_u_is_the_logarithm_of_the_mean_over_networks_and_dimensions_of_the_next_state() -> None:
    agent = make()
    state, action = torch.randn(B, S), torch.rand(B, A)
    inputs = torch.cat([state, action], 1).expand(3, -1, -1)
    mean, log_var = agent.dynamics(inputs)
    expected = (one_vs_rest(mean[..., :S], log_var[..., :S]) / (3 * S)).log()
    assert torch.allclose(agent.model_error(state, action), expected)
    with torch.no_grad():  # one opinion
        for weight in agent.dynamics.ensemble.parameters():
            weight.copy_(weight[:1].expand_as(weight))
    assert agent.model_error(state, action).isfinite().all()


@pytest.mark.parametrize(
    "kwargs",
    [{"max_horizon": 1}, {"max_horizon": 5, "threshold": -100.0}],
    ids=["H_max = 1", "every plan stops at once"],
)
def test_plans_of_one_step_are_sacs_improvement_bit_for_bit(kwargs: dict[str, float]) -> None:
    """Eq. 4: the loss and its gradient; and Q's loss."""
    agent = make(**kwargs, alpha=0.2, actor_max_norm=1e9)  # type: ignore[arg-type]
    sac = SAC(S, A, hidden_sizes=[16, 16], target_entropy=None, initial_temperature=0.2)
    sac.load_state_dict(agent.state_dict(), strict=False)
    observation = torch.randn(B, S)
    torch.manual_seed(1)
    ours, log_prob, length, _ = agent.actor_loss(observation)
    torch.manual_seed(1)
    theirs, expected = sac.actor_loss(observation)
    assert torch.equal(ours, theirs) and torch.equal(log_prob, expected) and length == 1
    ours.backward()
    theirs.backward()
    for p, q in zip(agent.actor.parameters(), sac.actor.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
    batch = transitions()
    torch.manual_seed(1)
    loss = agent.critic_loss(batch)
    torch.manual_seed(1)
    assert all(torch.equal(x, y) for x, y in zip(loss, sac.critic_loss(batch), strict=True))


def test_objective_equals_algorithm_1_row_by_row() -> None:
    """A policy for each step, the stop at large errors and at terminations, Q at the end."""
    agent = simple()
    observation, rows = torch.randn(60, S), 60
    agent.actor = Still()  # type: ignore[assignment]
    agent.later_actors = nn.ModuleList(Still() for _ in range(3))
    loss, _, length, mean_error = agent.actor_loss(observation)
    steps, errors, stops = 0, [], set()
    total = torch.zeros(())
    for i in range(rows):
        state = observation[i : i + 1]
        for t, actor in enumerate([agent.actor, *agent.later_actors]):  # l.3
            action, log_prob = actor.sample(state)  # l.4
            entropy, steps = -0.3 * log_prob, steps + 1
            following, reward, terminated = agent.dynamics.step(state, action)  # l.5
            u = error_of(state, action)
            if t < 3:
                errors.append(u.item())
            if t == 3 or u >= 0.5 or terminated:  # l.6
                q = agent.critic(state, action.unsqueeze(1)).amin(0)
                total = total + agent.gamma**t * (q + entropy).sum()  # l.7
                stops.add((t == 3, bool(u >= 0.5), bool(terminated)))
                break
            total = total + agent.gamma**t * (reward + entropy - 0.7 * u.exp()).sum()  # l.10
            state = following
    assert len(stops) >= 4, "every reason to stop must have been met"
    assert loss.item() == pytest.approx(-total.item() / rows, rel=1e-4)
    actors = nn.ModuleList([agent.actor, *agent.later_actors])
    assert_same_gradient(loss, -total / rows, actors)
    assert length.item() == pytest.approx(steps / rows)
    assert mean_error.item() == pytest.approx(sum(errors) / len(errors), rel=1e-4)


def test_gradient_of_each_policy_is_that_of_the_linear_quadratic_system() -> None:
    """H policies with gains of their own, through the model, in closed form; gamma^H at the end."""
    agent = make(4, threshold=100.0, beta=0.0, alpha=0.0, gamma=GAMMA)
    system = System()
    agent.dynamics, agent.critic = system, Quadratic(system)  # type: ignore[assignment]
    agent.model_error = error_of  # type: ignore[method-assign]
    gains = [0.4 * torch.randn(A, S, dtype=torch.float64) for _ in range(4)]
    agent.actor = LinearActor(gains[0])  # type: ignore[assignment]
    agent.later_actors = nn.ModuleList(LinearActor(gain) for gain in gains[1:])
    state = torch.randn(40, S, dtype=torch.float64)
    loss, _, length, _ = agent.actor_loss(state)
    loss.backward()
    assert length == 4
    expected = policy_gradients(system, gains, state.T @ state / 40, std=0.0)
    for actor, gradient in zip((agent.actor, *agent.later_actors), expected, strict=True):
        assert torch.allclose(-actor.gain.grad, gradient, atol=1e-9)


@pytest.mark.parametrize(("max_horizon", "slope"), [(2, 0.3), (4, 0.0)])
def test_gradient_with_entropy_is_the_closed_form_in_the_mean(
    max_horizon: int, slope: float
) -> None:
    """Learned deviations; where a later one rises with the state, pi_0 steers to where it does.

    Not squashed: the objective takes any policies that sample, and the entropy of these is known.
    """
    agent = make(max_horizon, threshold=100.0, beta=0.0, alpha=2.0, gamma=GAMMA)
    system = System()
    agent.dynamics, agent.critic = system, Quadratic(system)  # type: ignore[assignment]
    agent.model_error = error_of  # type: ignore[method-assign]
    sizes = {"gain": 0.4, "slope": slope}
    actors = [
        GaussianActor(
            **{name: size * torch.randn(A, S, dtype=torch.float64) for name, size in sizes.items()},
            log_std=0.2 * torch.randn(A, dtype=torch.float64) - 0.5,
        )
        for _ in range(max_horizon)
    ]
    agent.actor, agent.later_actors = actors[0], nn.ModuleList(actors[1:])  # type: ignore[assignment]
    state = torch.randn(S, dtype=torch.float64)
    loss, _, length, _ = agent.actor_loss(state.expand(300_000, -1))
    value, hard = (soft_value(system, actors, state, alpha) for alpha in (2, 0))
    assert length == max_horizon and loss.item() == pytest.approx(-value.item(), abs=0.05)
    parameters = [p for actor in actors for p in actor.parameters()]
    found, expected, without = (torch.autograd.grad(x, parameters) for x in (-loss, value, hard))
    for part, other in zip(found, expected, strict=True):
        assert torch.allclose(part, other, rtol=0.02, atol=0.02)
    share = (expected[0] - without[0]).norm()
    assert (share > 0.3) == (slope > 0), "the entropy must matter to the first gain"


def test_regularisation_moves_the_plan_down_the_model_error() -> None:
    """beta adds beta gamma^t grad u of the steps that are taken, and of no other."""
    observation, gradients = torch.randn(40, S), []
    for beta in (0.0, 0.7):
        agent = simple(max_horizon=2)
        agent.beta = beta
        torch.manual_seed(1)
        agent.actor_loss(observation)[0].backward()
        gradients.append([p.grad.clone() for p in agent.actor.parameters()])
    agent = simple(max_horizon=2)
    torch.manual_seed(1)
    action, _ = agent.actor.sample(observation)
    _, _, ended = agent.dynamics.step(observation, action)
    u = error_of(observation, action)
    kept = (u < 0.5) & ~ended
    assert 0 < kept.sum() < 40
    (0.7 * (u.exp() * kept).sum() / 40).backward()
    for without, with_u, p in zip(*gradients, agent.actor.parameters(), strict=True):
        assert torch.allclose(with_u - without, p.grad, atol=1e-5)


def test_only_the_first_policy_acts_and_all_of_them_learn() -> None:
    agent = make(3, threshold=100.0, actor_max_norm=1e-3)
    state = torch.randn(B, S)
    acted = agent.act(state, deterministic=True)
    assert torch.equal(acted, agent.actor.mode(state))
    for p in agent.later_actors.parameters():
        p.data += 1.0
    assert torch.equal(agent.act(state, deterministic=True), acted)
    agent.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    agent.configure_optimizers()
    before = {name: weight.clone() for name, weight in agent.state_dict().items()}
    agent.training_step(transitions().unsqueeze(0), 0)
    moved = {
        ".".join(name.split(".")[: 2 if name.startswith("later") else 1])
        for name, weight in agent.state_dict().items()
        if not torch.equal(weight, before[name])
    }
    assert moved == {"actor", "later_actors.0", "later_actors.1", "critic", "target_critic"}
    policies = (agent.actor, *agent.later_actors)
    norms = [p.grad.norm() for actor in policies for p in actor.parameters()]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert agent.gradient_norms["actor"] > 1e-2


def test_policies_of_steps_that_no_plan_reached_stay_as_they_are() -> None:
    agent = make(4, threshold=-100.0)
    agent.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    agent.configure_optimizers()
    before = {name: weight.clone() for name, weight in agent.state_dict().items()}
    agent.training_step(transitions().unsqueeze(0), 0)
    after = agent.state_dict()
    later = [name for name in before if name.startswith("later_actors")]
    assert later and all(torch.equal(after[name], before[name]) for name in later)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_horizon", 0),
        ("beta", -0.1),
        ("alpha", -0.1),
        ("dynamics_networks", 1),
        ("actor_max_norm", 0.0),
    ],
)
def test_bad_arguments_are_one_line(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"^model.{name}: {value} was given; allowed: .+$"):
        make(**{name: value})  # type: ignore[arg-type]
