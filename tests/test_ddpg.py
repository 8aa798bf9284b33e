"""DDPG against its paper's equations, and on a linear-quadratic system."""

import pytest
import torch
from linear_quadratic import GAMMA, LinearActor, Quadratic, System, policy_gradients
from tensordict import TensorDict

from lit_mbrl.algorithms import DDPG
from lit_mbrl.errors import ConfigurationError

S, A, B = 3, 2, 16


def make(**kwargs: object) -> DDPG:
    torch.manual_seed(0)
    return DDPG(S, A, **{"hidden_sizes": [16, 16], "gamma": GAMMA, **kwargs})  # type: ignore[arg-type]


def transitions() -> TensorDict:
    return TensorDict(
        {
            "observation": torch.randn(B, S),
            "action": torch.rand(B, 1, A) * 2 - 1,
            "reward": torch.randn(B, 1),
            "next": {"observation": torch.randn(B, S), "terminated": torch.rand(B) < 0.3},
        },
        batch_size=[B],
    )


def test_critic_loss_equals_a_naive_loop_and_touches_the_critic_alone() -> None:
    agent, batch = make(), transitions()
    loss, value = agent.critic_loss(batch)
    total = values = 0.0
    for i in range(B):
        row = batch[i : i + 1]
        state = row["next", "observation"]
        target = row["reward"].item()
        if not row["next", "terminated"]:
            bootstrap = agent.target_critic(state, agent.target_actor(state).unsqueeze(1))
            target += GAMMA * bootstrap.item()
        q = agent.critic(row["observation"], row["action"]).item()
        total, values = total + 0.5 * (q - target) ** 2, values + q
    assert loss.item() == pytest.approx(total / B, rel=1e-5)
    assert value.item() == pytest.approx(values / B, rel=1e-4)
    loss.backward()
    touched = {name.split(".")[0] for name, p in agent.named_parameters() if p.grad is not None}
    assert touched == {"critic"}


def test_deterministic_policy_gradient_is_that_of_the_linear_quadratic_system() -> None:
    """A linear policy and the system's own Q: the gradient of one step, in closed form."""
    system, agent = System(), make()
    state = torch.randn(50, S, dtype=torch.float64)
    gain = torch.randn(A, S, dtype=torch.float64)
    agent.actor, agent.critic = LinearActor(gain), Quadratic(system)  # type: ignore[assignment]
    agent.actor_loss(state).backward()
    (expected,) = policy_gradients(system, [gain], state.T @ state / 50, std=0.0)
    assert torch.allclose(-agent.actor.gain.grad, expected, atol=1e-9)


def test_actions_and_values_begin_near_zero_and_noise_is_cut_at_the_bounds() -> None:
    agent = make(exploration_std=0.5)
    state = torch.randn(2000, S)
    with torch.no_grad():
        assert agent.act(state, deterministic=True).abs().max() < 0.05
        assert agent.critic(state, torch.rand(2000, 1, A)).abs().max() < 0.05
        assert torch.equal(agent.act(state, deterministic=True), agent.actor.mode(state))
        noisy = agent.act(state)
    assert noisy.abs().max() == 1.0
    inside = noisy[noisy.abs() < 1]
    assert noisy.mean().item() == pytest.approx(0, abs=0.05) and inside.std() > 0.35


@pytest.mark.parametrize(
    ("name", "value"),
    [("critic_learning_rate", 0.0), ("critic_weight_decay", -1.0), ("exploration_std", -0.1)],
)
def test_bad_arguments_are_one_line(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"^model.{name}: {value} was given; allowed: .+$"):
        make(**{name: value})
