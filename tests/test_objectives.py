"""Targets and losses against naive loops and against the tabular theory."""

import pytest
import torch

from lit_mbrl.networks import Actor, Critic, Temperature
from lit_mbrl.objectives import discounted_return, plan_value_target, squared_error


def test_plan_value_target_equals_a_naive_loop() -> None:
    torch.manual_seed(0)
    gamma, reward, value = 0.9, torch.randn(6, 3), torch.randn(6)
    terminated = torch.tensor([True, False] * 3)
    target = plan_value_target(reward, terminated, value, gamma)
    for i in range(6):
        expected = sum(gamma**m * reward[i, m].item() for m in range(3))
        expected += 0.0 if terminated[i] else gamma**3 * value[i].item()
        assert target[i].item() == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(discounted_return(reward, 1.0), reward.sum(-1))
    more = reward.view(2, 3, 3), terminated.view(2, 3), value.view(2, 3)
    torch.testing.assert_close(plan_value_target(*more, gamma), target.view(2, 3))
    # What a termination leaves out must not come back as 0 * inf.
    endless = torch.full((6,), torch.inf)
    assert (
        plan_value_target(reward, torch.ones(6, dtype=torch.bool), endless, gamma).isfinite().all()
    )


def test_squared_error_is_half_the_mean_and_summed_over_critics() -> None:
    """Eq. 13 of paper 000."""
    values, target = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([0.0, 4.0])
    assert squared_error(values, target).item() == 0.5 * (1 + 4) / 2 + 0.5 * (9 + 1) / 2


def test_critic_equals_separate_networks_on_flattened_plans() -> None:
    torch.manual_seed(0)
    critic = Critic(3, 2, 4, [8, 8], critics=2)
    observation, plan = torch.randn(5, 3), torch.randn(5, 4, 2)
    x = torch.cat([observation, *plan.unbind(1)], -1)
    for c in range(2):
        h = x
        for layer in range(3):
            h = h @ critic.ensemble.weights[layer][c] + critic.ensemble.biases[layer][c]
            h = h.relu() if layer < 2 else h
        assert torch.allclose(critic(observation, plan)[c], h[:, 0], atol=1e-6)
    assert not torch.equal(critic.ensemble.weights[0][0], critic.ensemble.weights[0][1])


def test_log_probability_is_that_of_the_squashed_gaussian() -> None:
    """Against torch's own distribution, also where tanh saturates in float32."""
    from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

    torch.manual_seed(0)
    actor = Actor(3, 2, [8])
    observation = torch.randn(1000, 3)
    with torch.no_grad():
        action, log_prob = actor.sample(observation)
        mean, log_std = actor(observation)
        normal = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
        expected = Independent(normal, 1).log_prob(action)
        inside = action.abs().amax(-1) < 0.999
        assert inside.sum() > 500
        assert torch.allclose(log_prob[inside], expected[inside], atol=1e-3)
        actor.network[-1].bias[:2] = 50.0
        action, log_prob = actor.sample(observation)
    assert action.eq(1).all() and log_prob.isfinite().all()


def test_an_action_has_the_probability_and_the_noise_that_it_was_drawn_with() -> None:
    """Whatever the number of leading dimensions."""
    actor, observation = Actor(3, 2, [8]), torch.randn(4, 5, 3)
    with torch.no_grad():
        action, log_prob = actor.sample(observation)
        torch.testing.assert_close(actor.log_prob(observation, action), log_prob, atol=1e-3, rtol=0)
        noise = actor.noise(observation, action)
        assert noise.shape == action.shape
        torch.testing.assert_close(actor.action(observation, noise), action)


def test_entropy_of_the_actor_is_minus_the_mean_log_probability() -> None:
    """log_prob integrates to a density: the mean of exp(-log_prob) is the volume of [-1, 1]^A."""
    torch.manual_seed(0)
    actor = Actor(1, 1, [4])
    with torch.no_grad():
        _, log_prob = actor.sample(torch.zeros(400_000, 1))
    assert (-log_prob).exp().mean().item() == pytest.approx(2.0, rel=0.02)


def test_temperature_rises_while_the_entropy_is_below_its_target() -> None:
    for log_prob, rises in ((torch.tensor([2.0, 4.0]), True), (torch.tensor([-9.0]), False)):
        temperature = Temperature(0.5, learned=True)
        assert temperature().item() == pytest.approx(0.5)
        temperature.loss(log_prob, target_entropy=-1.0).backward()
        assert (temperature.log_value.grad.item() < 0) == rises
    fixed = Temperature(0.0, learned=False)
    assert fixed().item() == 0.0 and not list(fixed.parameters())
