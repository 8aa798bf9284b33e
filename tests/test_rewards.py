"""Known rewards against the simulators' own."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_mbrl.envs import Reward, make_gym_env, resolve_reward
from lit_mbrl.envs.rewards import (
    balanced_pendulum,
    centred_pendulum,
    halfcheetah,
    inverted_pendulum,
)
from lit_mbrl.errors import ConfigurationError


def transitions(env_id: str, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """s, a, s' and r of uniformly random actions, held for five steps so that the cheetah moves."""
    env, rng = make_gym_env(env_id), np.random.default_rng(0)
    size = env.action_space.shape
    assert size is not None
    observation, _ = env.reset(seed=0)
    rows = []
    for t in range(steps):
        if t % 5 == 0:
            action = rng.uniform(-1, 1, size)
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, following, [float(reward)]))
        observation = env.reset()[0] if terminated or truncated else following
    s, a, f, r = (
        torch.tensor(np.stack(part), dtype=torch.float32) for part in zip(*rows, strict=True)
    )
    return s, a, f, r.squeeze(1)


def test_the_pendulums_reward_is_the_simulators() -> None:
    observation, action, following, reward = transitions("InvertedPendulum-v5", 2000)
    assert torch.equal(inverted_pendulum(observation, action, following), reward)
    assert 0 < int(reward.sum()) < 2000


def test_the_cheetahs_reward_is_the_simulators_but_for_what_happens_within_a_step() -> None:
    """A step of the task is five of the simulator, whose mean velocity lies between the ends'."""
    observation, action, following, reward = transitions("HalfCheetah-v5", 2000)
    found = halfcheetah(observation, action, following)
    error = (found - reward).square().mean().sqrt()
    assert float(error) < 0.25 * float(reward.std())
    assert abs(float((found - reward).mean())) < 0.02 * float(reward.std())
    still = halfcheetah(torch.zeros(3, 17), torch.full((3, 6), 0.5), torch.zeros(3, 17))
    torch.testing.assert_close(still, torch.full((3,), -0.15))


def test_the_balanced_pendulums_reward_is_of_the_poles_tip() -> None:
    """1 above the middle; the tip is 0.6 m from the cart, whose position counts with it."""
    action = torch.zeros(4, 1)
    following = torch.zeros(4, 4)
    following[1, :2] = torch.tensor([0.6, 0.0])
    following[2, :2] = torch.tensor([0.0, torch.pi / 2])
    following[3, :2] = torch.tensor([-0.06, float(np.arcsin(0.1))])
    found = balanced_pendulum(following, action, following)
    down = 0.6 * (1 - np.cos(np.arcsin(0.1)))
    expected = torch.tensor([0.0, -1.0, -2.0, -(float(down / 0.6) ** 2)]).exp()
    torch.testing.assert_close(found, expected)
    moved = balanced_pendulum(following, action + 1, following)
    torch.testing.assert_close(found - moved, torch.full((4,), 0.01))


def test_the_centred_pendulums_reward_falls_from_the_middle_to_the_ends() -> None:
    """1 in the middle, 0 where the pole falls and where the rail ends, with a slope on the way."""
    action = torch.zeros(5, 1)
    following = torch.zeros(5, 4)
    following[1:, :2] = torch.tensor([[1.0, 0.0], [0.0, -0.2], [-0.5, 0.0], [0.0, 0.1]])
    following.requires_grad_()
    found = centred_pendulum(following, action, following)
    torch.testing.assert_close(found.detach(), torch.tensor([1.0, 0.0, 0.0, 0.75, 0.75]))
    (slope,) = torch.autograd.grad(found.sum(), following)
    expected = torch.tensor([[0.0, 0.0], [-2.0, 0.0], [0.0, 10.0], [1.0, 0.0], [0.0, -5.0]])
    torch.testing.assert_close(slope[:, :2], expected)


@pytest.mark.parametrize(
    "reward", [balanced_pendulum, centred_pendulum, halfcheetah, inverted_pendulum]
)
def test_rewards_of_rows_with_more_dimensions_are_those_of_the_rows(reward: Reward) -> None:
    torch.manual_seed(0)
    states, actions = reward.sizes  # type: ignore[attr-defined]
    rows = torch.randn(2, 3, states), torch.randn(2, 3, actions), torch.randn(2, 3, states)
    flat = reward(*(part.flatten(0, 1) for part in rows))
    torch.testing.assert_close(reward(*rows), flat.view(2, 3))


@pytest.mark.parametrize("path", ["nowhere.reward", "lit_mbrl.envs.rewards.none", "halfcheetah"])
def test_unfit_rewards_are_refused_in_one_line(path: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"model\.reward: '{path}' was given") as caught:
        resolve_reward(path)
    assert "\n" not in str(caught.value)
    assert resolve_reward("lit_mbrl.envs.rewards.halfcheetah") is halfcheetah
