"""S2VG against the paper: Eq. 6, 7, 8 and 11, and which gradients flow."""

import math

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from lit_mbrl.algorithms import S2VG
from lit_mbrl.errors import ConfigurationError

S, A, B = 3, 2, 8
GAMMA, ALPHA = 0.9, 0.3


def falls_below_zero(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """Ends an episode where the first coordinate is negative."""
    return next_observation[..., 0] < 0


def make(termination: str = "never", **kwargs: object) -> S2VG:
    torch.manual_seed(0)
    small = {"hidden_sizes": [16, 16], "model_hidden_sizes": [8], "gamma": GAMMA, "alpha": ALPHA}
    agent = S2VG(S, A, termination, **{**small, **kwargs})  # type: ignore[arg-type]
    agent.configure_optimizers()
    return agent


def transitions() -> TensorDict:
    return TensorDict(
        {
            "observation": torch.randn(B, S),
            "action": torch.rand(B, 1, A) * 2 - 1,
            "reward": torch.randn(B, 1),
            "mask": torch.ones(B, 1, dtype=torch.bool),
            "next": {"observation": torch.randn(B, S), "terminated": torch.rand(B) < 0.3},
        },
        batch_size=[B],
    )


def gradient(loss: Tensor, module: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])


# Eq. 6


def test_the_model_error_is_the_expectation_over_the_noise() -> None:
    """Against 50,000 samples of f(s, a, zeta) and r^(s, a, zeta)."""
    agent, batch = make(), transitions()
    inputs = torch.cat([batch["observation"], batch["action"][:, 0]], -1)
    for network, loss, target in (
        (agent.transition, agent.transition_loss, batch["next", "observation"] - inputs[:, :S]),
        (agent.reward, agent.reward_loss, batch["reward"]),
    ):
        many = inputs.repeat(50_000, 1)
        error = (network.sample(many) - target.repeat(50_000, 1)).square().sum(-1)
        assert float(loss(batch)) == pytest.approx(float(0.5 * error.mean()), rel=0.02)


def test_a_model_that_knows_nothing_yet_stays_near_the_state() -> None:
    agent, batch = make(), transitions()
    inputs = torch.cat([batch["observation"], batch["action"][:, 0]], -1)
    assert agent.transition(inputs)[1].max() < 0.15


def test_the_model_is_fitted_to_real_data_within_training_step() -> None:
    """A linear system with a quadratic reward: the errors fall, the noise goes to nothing."""
    agent, batch = make(model_hidden_sizes=[32], model_learning_rate=1e-2), transitions()
    agent.log_step = lambda **metrics: None  # type: ignore[method-assign]
    first = float(agent.transition_loss(batch)), float(agent.reward_loss(batch))
    for _ in range(300):
        agent.training_step(batch.unsqueeze(0), 0)
    last = float(agent.transition_loss(batch)), float(agent.reward_loss(batch))
    assert last[0] < first[0] / 20 and last[1] < first[1] / 20


# Eq. 7


def naive_expansion(agent: S2VG, batch: TensorDict) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Eq. 7 row after row, with the model's means in place of its samples."""
    rows = []
    for n in range(B):
        states, actions = [batch["observation"][n]], [batch["action"][n, 0]]
        rewards, ended = [batch["reward"][n, 0]], bool(batch["next", "terminated"][n])
        state = batch["next", "observation"][n]
        while len(rewards) < agent.horizon and not ended:
            action = agent.actor.mode(state)
            inputs = torch.cat([state, action])[None]
            following = state + agent.transition(inputs)[0][0]
            states.append(state)
            actions.append(action)
            rewards.append(agent.reward(inputs)[0][0, 0])
            ended = bool(agent.termination(state, action, following))
            state = following
        end = 0.0 if ended else agent.target_value(state[None])[0]
        for t in range(len(rewards)):
            target = sum(GAMMA ** (m - t) * rewards[m] for m in range(t, len(rewards)))
            target = target + GAMMA ** (len(rewards) - t) * end
            rows.append((states[t], actions[t], target))
    return rows


def noiseless(agent: S2VG) -> S2VG:
    """Without noise in policy and model."""
    agent.actor.sample = lambda s: (agent.actor.mode(s), torch.zeros(len(s)))  # type: ignore[method-assign]
    for network in (agent.transition, agent.reward):
        network.sample = lambda x, network=network: network(x)[0]  # type: ignore[method-assign]
    return agent


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_the_expansion_and_its_gradient_are_those_of_a_naive_loop(horizon: int) -> None:
    agent = noiseless(make(f"{__name__}.falls_below_zero", horizon=horizon))
    batch = transitions()
    with torch.no_grad():
        rows = naive_expansion(agent, batch)
    assert B * horizon > len(rows) > B or horizon == 1
    states, actions, targets = (torch.stack(part) for part in zip(*rows, strict=True))
    found = agent.expand(batch)
    order = [part.sort().indices for part in (found.target, targets)]
    assert torch.allclose(found.target[order[0]], targets[order[1]], atol=1e-5)
    assert torch.allclose(found.observation[order[0]], states[order[1]], atol=1e-5)
    assert torch.allclose(found.action[order[0], 0], actions[order[1]], atol=1e-5)
    values = agent.critic(states, actions.unsqueeze(1))
    expected = 0.5 * sum(((values[i] - targets) ** 2).mean() for i in range(2))
    loss, mean = agent.critic.loss(*found)
    assert torch.allclose(loss, expected, atol=1e-5)
    assert torch.allclose(mean, values.mean(), atol=1e-5)
    assert torch.allclose(gradient(loss, agent.critic), gradient(expected, agent.critic), atol=1e-5)


def test_without_a_horizon_the_values_are_learned_from_real_data_alone() -> None:
    """H = 1: whatever the model and the policy say, Eq. 7 is r + gamma V(s')."""
    agent, batch = make(horizon=1), transitions()

    def undefined(*_: Tensor) -> Tensor:
        raise AssertionError("the model was asked")

    agent.transition.forward = agent.reward.forward = undefined  # type: ignore[method-assign]
    found = agent.expand(batch)
    following = agent.target_value(batch["next", "observation"])
    alive = ~batch["next", "terminated"]
    assert torch.allclose(found.target, batch["reward"][:, 0] + GAMMA * alive * following)
    assert torch.equal(found.observation, batch["observation"])
    assert torch.equal(found.action, batch["action"])


def test_the_expansion_ends_before_a_state_that_is_not_finite() -> None:
    agent = noiseless(make(f"{__name__}.falls_below_zero", horizon=3))
    agent.transition.sample = lambda x: torch.full((len(x), S), -math.inf)  # type: ignore[method-assign]
    assert agent.expand(transitions()).target.isfinite().all()


# Eq. 8


def test_the_state_value_is_the_soft_value_of_the_smaller_critic() -> None:
    agent, batch = make(), transitions()
    torch.manual_seed(1)
    found = agent.value_loss(batch["observation"])
    torch.manual_seed(1)
    action, log_prob = agent.actor.sample(batch["observation"])
    values = agent.critic(batch["observation"], action.unsqueeze(1))
    expected = torch.zeros(())
    for n in range(B):
        target = (min(values[0, n], values[1, n]) - ALPHA * log_prob[n]).detach()
        expected = expected + (agent.value(batch["observation"][n : n + 1])[0] - target) ** 2
    expected = 0.5 * expected / B
    assert torch.allclose(found, expected)
    assert torch.allclose(gradient(found, agent.value), gradient(expected, agent.value), atol=1e-6)


# Eq. 11


def test_the_policy_gradient_is_eq_11_row_after_row() -> None:
    """(dr/da - alpha dlog pi/da + gamma V'_s' f_a) pi_theta, and log pi's own dependence."""
    agent, batch = make(), transitions()
    noise = torch.randn(B, A + S + 1)
    drawn = iter([noise[:, :A], noise[:, A:-1], noise[:, -1:]])
    with pytest.MonkeyPatch.context() as patch:
        for module in ("actor", "gaussian"):
            patch.setattr(f"lit_mbrl.networks.{module}.standard_normal", lambda _: next(drawn))
        loss, _ = agent.actor_loss(batch["observation"])
    found = gradient(loss, agent.actor)
    expected = torch.zeros_like(found)
    for n in range(B):
        state = batch["observation"][n : n + 1]
        mean, log_std = agent.actor(state)
        action = (mean + log_std.exp() * noise[n, :A]).tanh()
        normal = torch.distributions.Normal(mean, log_std.exp())
        log_prob = (normal.log_prob(action.atanh()) - (1 - action**2).log()).sum()
        at = action.detach().requires_grad_()
        inputs = torch.cat([state, at], -1)
        mu, sigma = agent.transition(inputs)
        following = (state + mu + sigma * noise[n, A:-1]).detach().requires_grad_()
        (value_s,) = torch.autograd.grad(agent.value(following).sum(), following)
        mu_r, sigma_r = agent.reward(inputs)
        stepped = mu + sigma * noise[n, A:-1]
        objective = (mu_r + sigma_r * noise[n, -1]).sum() + GAMMA * (value_s * stepped).sum()
        (value_a,) = torch.autograd.grad(objective, at)
        surrogate = (value_a * action).sum() - ALPHA * log_prob
        expected = expected - gradient(surrogate, agent.actor) / B
    assert expected.norm() > 1e-3
    assert torch.allclose(found, expected, atol=1e-5)


def test_on_a_linear_system_the_policy_gradient_is_the_known_one() -> None:
    """s' = F s + G a, r = -s'Q s / 2 - a'R a / 2, V = -s'P s / 2, a = K s + noise, no entropy."""
    torch.manual_seed(3)
    f, g, k, deviation = torch.randn(S, S), torch.randn(S, A), torch.randn(A, S), 0.2
    q, r, p = (m @ m.T for m in (torch.randn(S, S), torch.randn(A, A), torch.randn(S, S)))
    agent, batch = make(alpha=0.0), transitions()

    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(k.clone())

        def sample(self, state: Tensor) -> tuple[Tensor, Tensor]:
            action = state @ self.gain.T + deviation * torch.randn(len(state), A)
            return action, torch.zeros(len(state))

    class Model(nn.Module):
        def sample(self, x: Tensor) -> Tensor:
            state, action = x.split([S, A], -1)
            noise = 0.1 * torch.randn(len(x), S)
            return state @ f.T + action @ g.T + noise - state

    class Reward(nn.Module):
        def sample(self, x: Tensor) -> Tensor:
            state, action = x.split([S, A], -1)
            state_cost, action_cost = ((state @ q) * state).sum(-1), ((action @ r) * action).sum(-1)
            return -0.5 * (state_cost + action_cost).unsqueeze(-1)

    class Quadratic(nn.Module):
        def forward(self, state: Tensor) -> Tensor:
            return -0.5 * ((state @ p) * state).sum(-1)

    agent.actor, agent.transition, agent.reward = Policy(), Model(), Reward()
    agent.value = Quadratic()
    state = batch["observation"]
    many = state.repeat(100_000, 1)
    found = -gradient(agent.actor_loss(many)[0], agent.actor).view(A, S)
    # The expectation over both noises: they are independent of the state.
    action = state @ k.T
    following = state @ f.T + action @ g.T
    expected = -torch.einsum("na,ns->as", action @ r + GAMMA * following @ p @ g, state) / B
    assert torch.allclose(found, expected, rtol=0.01, atol=0.01 * float(expected.abs().max()))


def test_a_step_on_the_policy_moves_nothing_else() -> None:
    agent, batch = make(), transitions()
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    agent.step("actor", agent.actor_loss, batch["observation"], max_norm=agent.actor_max_norm)
    moved = {n for n, value in agent.state_dict().items() if not torch.equal(value, before[n])}
    assert moved and all(name.startswith("actor.") for name in moved)


# The order of Algorithm 1


def test_each_round_is_made_of_the_models_step_and_the_three_others() -> None:
    """m rounds; a target that follows V; the norm of the actor's gradient before it is clipped."""
    agent, logged = make(actor_max_norm=1e-3), {}
    agent.log_step = lambda **metrics: logged.update(metrics)  # type: ignore[method-assign]
    taken = []
    step = agent.step

    def noted(name: str, *args: object, **kwargs: object) -> tuple[Tensor, ...]:
        taken.append(name)
        return step(name, *args, **kwargs)  # type: ignore[arg-type]

    agent.step = noted  # type: ignore[method-assign]
    before = [p.clone() for p in agent.target_value.parameters()]
    agent.training_step(torch.stack([transitions() for _ in range(3)]), 0)
    assert taken == ["transition", "reward"] * 3 + ["critic", "value", "actor"] * 3
    assert any(
        not torch.equal(a, b) for a, b in zip(before, agent.target_value.parameters(), strict=True)
    )
    norm = torch.stack([p.grad.norm() for p in agent.actor.parameters() if p.grad is not None])
    assert float(norm.norm()) <= 1e-3 * 1.001 < float(logged["actor_gradient_norm"])


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ({"horizon": 0}, "model.horizon"),
        ({"alpha": -0.1}, "model.alpha"),
        ({"value_learning_rate": 0.0}, "model.value_learning_rate"),
        ({"model_learning_rate": 0.0}, "model.model_learning_rate"),
        ({"model_hidden_sizes": []}, "model.model_hidden_sizes"),
        ({"actor_max_norm": 0.0}, "model.actor_max_norm"),
        ({"horizon": 2, "termination": "learned"}, "data.termination"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], option: str) -> None:
    with pytest.raises(ConfigurationError, match=option):
        make(**arguments)  # type: ignore[arg-type]


def test_with_one_step_no_termination_need_be_known() -> None:
    assert make("learned", horizon=1).horizon == 1
