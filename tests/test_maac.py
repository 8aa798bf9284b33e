"""MAAC: its objective through the model against loops, closed forms and its special cases."""

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
from torch import Tensor

from lit_mbrl.algorithms import MAAC, SAC
from lit_mbrl.errors import ConfigurationError

S, A, B = 3, 2, 12
SMALL = {
    "hidden_sizes": [16, 16],
    "dynamics_hidden_sizes": [8],
    "dynamics_weight_decay": [0.0, 0.0],
    "dynamics_networks": 3,
    "dynamics_elites": 2,
}


def falls_below_zero(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """Ends an episode where the first coordinate is negative."""
    return next_observation[..., 0] < 0


FALLS = f"{__name__}.falls_below_zero"


def make(horizon: int = 3, **kwargs: object) -> MAAC:
    torch.manual_seed(0)
    return MAAC(S, A, FALLS, horizon=horizon, **{**SMALL, **kwargs})  # type: ignore[arg-type]


def linear_quadratic(horizon: int, noise: float, std: float) -> tuple[MAAC, System, Tensor]:
    """An agent whose model, critic and policy are the system's, without entropy; its gain."""
    agent = make(horizon, target_entropy=None, initial_temperature=0.0, gamma=GAMMA)
    system = System(noise)
    gain = 0.4 * torch.randn(A, S, dtype=torch.float64)
    agent.dynamics, agent.critic = system, Quadratic(system)  # type: ignore[assignment]
    agent.actor = LinearActor(gain, std)  # type: ignore[assignment]
    return agent, system, gain


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


@pytest.mark.parametrize("horizon", [1, 3])
def test_objective_equals_a_naive_loop(horizon: int) -> None:
    """The discounted soft rewards up to the smaller Q, at H or at the action before the end."""
    agent = make(horizon, initial_temperature=0.4)
    observation, alpha = torch.randn(60, S), 0.4
    torch.manual_seed(1)
    loss, first = agent.actor_loss(observation)
    torch.manual_seed(1)
    state, ended = observation, torch.zeros(60, dtype=torch.bool)
    objective = torch.zeros(60)
    for h in range(horizon + 1):
        action, log_prob = agent.actor.sample(state)
        if h == 0:
            assert torch.equal(first, log_prob)
        value = agent.critic(state, action.unsqueeze(1)).amin(0)
        if h < horizon:
            following, reward, ends = agent.dynamics.step(state, action)
        for i in range(60):
            if not ended[i]:
                gain = value[i] if h == horizon or ends[i] else reward[i]
                objective[i] += agent.gamma**h * (gain - alpha * log_prob[i])
        state = torch.where((ended | ends).unsqueeze(1), state, following)
        ended = ended | ends
    assert 0 < ended.sum() < 60
    assert loss.item() == pytest.approx(-objective.mean().item(), rel=1e-5)
    parameters = list(agent.actor.parameters())
    ours, theirs = (torch.autograd.grad(x, parameters) for x in (loss, -objective.mean()))
    assert any(part.norm() > 1e-3 for part in theirs)
    for part, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("horizon", [0, 1, 4])
def test_gradient_is_that_of_the_linear_quadratic_system(horizon: int) -> None:
    """Without noise, to rounding: what each of the H model steps and Q have to do with the gain."""
    agent, system, gain = linear_quadratic(horizon, noise=0.0, std=0.0)
    state = torch.randn(40, S, dtype=torch.float64)
    agent.actor_loss(state)[0].backward()
    expected = policy_gradients(system, [gain] * (horizon + 1), state.T @ state / 40, std=0.0)
    assert torch.allclose(-agent.actor.gain.grad, sum(expected), atol=1e-9)


def test_gradient_with_noise_is_the_closed_form_in_the_mean() -> None:
    """Reparameterised policy and model: the covariances of the states come in."""
    agent, system, gain = linear_quadratic(3, noise=0.3, std=0.5)
    state = torch.randn(1, S, dtype=torch.float64).expand(300_000, -1)
    agent.actor_loss(state)[0].backward()
    expected = sum(policy_gradients(system, [gain] * 4, state[:1].T @ state[:1], std=0.5))
    assert torch.allclose(-agent.actor.gain.grad, expected, rtol=0.02, atol=0.01)
    still = sum(policy_gradients(System(), [gain] * 4, state[:1].T @ state[:1], std=0.0))
    assert not torch.allclose(still, expected, rtol=0.05, atol=0.05), "the noise must matter"


@pytest.mark.parametrize(("horizon", "slope"), [(1, 0.3), (3, 0.0)])
def test_gradient_with_entropy_is_the_closed_form_in_the_mean(horizon: int, slope: float) -> None:
    """A learned deviation; where it rises with the state, the policy also steers to where it does.

    Not squashed: the objective takes any policy that samples, and this one's entropy is known.
    """
    agent, system, gain = linear_quadratic(horizon, noise=0.0, std=0.0)
    agent.temperature.log_value.fill_(math.log(2.0))
    log_std = torch.tensor([-0.7, -0.2], dtype=torch.float64)
    actor = GaussianActor(gain, slope * torch.randn(A, S, dtype=torch.float64), log_std)
    agent.actor = actor  # type: ignore[assignment]
    state = torch.randn(S, dtype=torch.float64)
    loss, _ = agent.actor_loss(state.expand(300_000, -1))
    value, hard = (soft_value(system, [actor] * (horizon + 1), state, alpha) for alpha in (2, 0))
    assert loss.item() == pytest.approx(-value.item(), abs=0.05)
    found, expected, without = (
        torch.autograd.grad(x, list(actor.parameters())) for x in (-loss, value, hard)
    )
    for part, other in zip(found, expected, strict=True):
        assert torch.allclose(part, other, rtol=0.02, atol=0.02)
    gain_share, *shares = ((e - w).norm() for e, w in zip(expected, without, strict=True))
    assert min(shares) > 0.3 and (gain_share > 0.3) == (slope > 0), "the entropy must matter"


def test_without_model_steps_the_actors_loss_is_sacs_bit_for_bit() -> None:
    agent = make(horizon=0)
    sac = SAC(S, A, hidden_sizes=[16, 16])
    sac.load_state_dict(agent.state_dict(), strict=False)
    observation = torch.randn(B, S)
    torch.manual_seed(1)
    ours = agent.actor_loss(observation)
    torch.manual_seed(1)
    theirs = sac.actor_loss(observation)
    assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))
    batch = transitions()
    torch.manual_seed(1)
    target = agent.critic_loss(batch)
    torch.manual_seed(1)
    assert all(torch.equal(x, y) for x, y in zip(target, sac.critic_loss(batch), strict=True))


def test_a_step_moves_actor_and_critic_and_not_the_model_it_passes_through() -> None:
    """The norm that is reported is that before the clipping."""
    agent = make(actor_max_norm=1e-3)
    agent.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    agent.configure_optimizers()
    before = {name: weight.clone() for name, weight in agent.state_dict().items()}
    agent.training_step(torch.stack([transitions(), transitions()]), 0)
    moved = {
        name.split(".")[0]
        for name, weight in agent.state_dict().items()
        if not torch.equal(weight, before[name])
    }
    assert moved == {"actor", "critic", "target_critic", "temperature"}
    norm = torch.stack([p.grad.norm() for p in agent.actor.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)
    assert agent.gradient_norms["actor"] > 10 * norm


def test_the_gradient_passes_through_every_step_of_the_model() -> None:
    """Cut off at the model, it would be another one."""
    agent = make(horizon=2)
    observation = torch.randn(B, S) + 3
    torch.manual_seed(1)
    agent.actor_loss(observation)[0].backward()
    through = [p.grad.clone() for p in agent.actor.parameters()]
    agent.actor.zero_grad()
    step = agent.dynamics.step
    agent.dynamics.step = torch.no_grad()(step)  # type: ignore[method-assign]
    torch.manual_seed(1)
    agent.actor_loss(observation)[0].backward()
    cut = [p.grad for p in agent.actor.parameters()]
    assert not any(torch.allclose(t, c, rtol=1e-2) for t, c in zip(through, cut, strict=True))


@pytest.mark.parametrize(("name", "value"), [("horizon", -1), ("actor_max_norm", 0.0)])
def test_bad_arguments_are_one_line(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"^model.{name}: {value} was given; allowed: .+$"):
        make(**{name: value})  # type: ignore[arg-type]
