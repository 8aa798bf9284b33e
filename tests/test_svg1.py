"""SVG(1): one step along real transitions, and the value that follows it."""

import pytest
import torch
from small_svg import GAMMA, A, B, S, cost_to_go, gradient, matrices, svg, windows
from torch import Tensor, nn

from lit_mbrl.algorithms import SVG1
from lit_mbrl.dynamics import infer_noise, step_with_noise
from lit_mbrl.errors import ConfigurationError


def test_svg1_is_one_step_of_the_recursion_with_the_value_at_its_end() -> None:
    """w (r_a + gamma V'_s' f_a) pi_theta (Alg. 2, l.13), V' zero behind a termination."""
    agent, batch = svg(SVG1), windows(1)
    batch["next", "terminated"] = torch.arange(B) % 3 == 0
    weight = torch.rand(B)
    state, action = batch["observation"], batch["action"][:, 0]
    following = batch["next", "observation"].clone().requires_grad_()
    (value_s,) = torch.autograd.grad(agent.value(following).sum(), following)
    value_s = value_s * ~batch["next", "terminated"].unsqueeze(-1)
    at = action.clone().requires_grad_()
    noise = infer_noise(agent.dynamics, state, action, batch["next", "observation"]).detach()
    stepped, reward = step_with_noise(agent.dynamics, state, at, noise)
    value_a = torch.autograd.grad(reward.sum() + GAMMA * (value_s * stepped).sum(), at)[0]
    taken = agent.actor.action(state, agent.actor.noise(state, action).detach())
    expected = gradient(-(weight.unsqueeze(-1) * value_a * taken).sum() / B, agent.actor)
    assert expected.norm() > 1e-4
    found = gradient(agent.actor_loss(batch, weight), agent.actor)
    assert torch.allclose(found, expected, atol=1e-6)


def test_weights_are_ratios_of_densities_cut_off() -> None:
    agent, batch = svg(SVG1, max_weight=1.5), windows(1)
    log_prob = agent.log_prob(batch["observation"], batch["action"][:, 0])
    ratio = [float((log_prob[n] - batch["log_prob"][n, 0]).exp().detach()) for n in range(B)]
    assert min(ratio) < 1.5 < max(ratio)
    assert agent.weights(batch).tolist() == pytest.approx([min(r, 1.5) for r in ratio])


def test_the_value_is_evaluated_by_weighted_squared_errors() -> None:
    agent, batch = svg(SVG1), windows(1)
    batch["next", "terminated"] = torch.arange(B) % 3 == 0
    weight = torch.rand(B)
    expected = torch.zeros(())
    for n in range(B):
        target = batch["reward"][n, 0]
        if not batch["next", "terminated"][n]:
            following = batch["next", "observation"][n : n + 1]
            target = target + GAMMA * agent.target_value(following)[0].detach()
        error = agent.value(batch["observation"][n : n + 1])[0] - target
        expected = expected + weight[n] * error**2 / 2 / B
    found, mean = agent.value_loss(batch, weight)
    assert torch.allclose(found, expected)
    assert torch.allclose(mean, agent.value(batch["observation"]).mean())
    assert torch.allclose(gradient(found, agent.value), gradient(expected, agent.value))


def test_on_a_linear_system_svg1_has_the_known_policy_gradient() -> None:
    """The gain's gradient is -(R a + gamma G'P s') s', with V = -s'P s / 2 and actions of old."""
    f, g, k, q, r = (part.float() for part in matrices())
    value = cost_to_go(300).float()

    class LinearModel(nn.Module):
        elites = torch.arange(1)

        def __call__(self, inputs: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
            state, action = inputs[..., :S], inputs[..., S:]
            following = state @ f.T + action @ g.T
            reward = -0.5 * ((state @ q) * state).sum(-1) - 0.5 * ((action @ r) * action).sum(-1)
            mean = torch.cat([following - state, reward.unsqueeze(-1)], -1)
            return mean, torch.full_like(mean, -2.0)

    class LinearPolicy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(k.clone())

        def noise(self, state: Tensor, action: Tensor) -> Tensor:
            return (action - state @ self.gain.T) / 0.1

        def action(self, state: Tensor, noise: Tensor) -> Tensor:
            return state @ self.gain.T + 0.1 * noise

    class Quadratic(nn.Module):
        def forward(self, state: Tensor) -> Tensor:
            return -0.5 * ((state @ value) * state).sum(-1)

    agent, batch = svg(SVG1), windows(1, ends=False)
    agent.dynamics, agent.actor, agent.value = LinearModel(), LinearPolicy(), Quadratic()
    weight = torch.rand(B)
    state, action = batch["observation"], batch["action"][:, 0]
    value_a = -action @ r - GAMMA * batch["next", "observation"] @ value @ g
    expected = -torch.einsum("n,na,ns->as", weight, value_a, state) / B
    found = gradient(agent.actor_loss(batch, weight), agent.actor).view(A, S)
    assert torch.allclose(found, expected, rtol=1e-4)


def test_the_policy_waits_for_the_value() -> None:
    """Its first step is that after `value_updates` of V, whatever batches they come in."""
    agent = svg(SVG1, value_updates=5)
    agent.log_step = lambda **metrics: None  # type: ignore[method-assign]
    agent.configure_optimizers()
    first = [p.clone() for p in agent.actor.parameters()]
    for updates, moves in ((3, False), (2, False), (1, True)):
        agent.training_step(torch.stack([windows(1)] * updates), 0)
        assert moves != all(map(torch.equal, first, agent.actor.parameters()))
    with pytest.raises(ConfigurationError, match=r"^model.value_updates: -1 was given; allowed: "):
        svg(SVG1, value_updates=-1)
