"""The recursion of value gradients on linear systems, against the closed form."""

import pytest
import torch
from small_svg import GAMMA, A, B, S, cost_to_go, matrices
from torch import Tensor

from lit_mbrl.objectives import Partials, backward_recursion, jacobian


def linear_partials(state: Tensor, action: Tensor) -> Partials:
    """Of the system of `matrices`, at states [..., S] and actions [..., A]."""
    f, g, k, q, r = matrices()
    each = state.shape[:-1]
    return Partials(
        -state @ q, -action @ r, f.expand(*each, S, S), g.expand(*each, S, A), k.expand(*each, A, S)
    )


def real_paths(rows: int, steps: int, noise: float) -> tuple[Tensor, Tensor]:
    """States [rows, steps + 1, S] and actions [rows, steps, A] of the linear policy."""
    f, g, k, _, _ = matrices()
    state = torch.randn(1, S, dtype=torch.double).expand(rows, S)
    states, actions = [state], []
    for _ in range(steps):
        action = state @ k.T + noise * torch.randn(rows, A, dtype=torch.double)
        state = state @ f.T + action @ g.T + noise * torch.randn(rows, S, dtype=torch.double)
        states.append(state)
        actions.append(action)
    return torch.stack(states, 1), torch.stack(actions, 1)


def test_the_recursion_is_the_known_value_gradient_without_noise() -> None:
    """V_s = -P s, and v_a = -(R a + gamma G'P s'), discounted."""
    torch.manual_seed(0)
    states, actions = real_paths(4, 6, noise=0.0)
    on_policy = torch.ones(4, 6, dtype=torch.double)
    partials = linear_partials(states[:, :-1], actions)
    value_a, value_s = backward_recursion(
        partials, on_policy, torch.zeros_like(states[:, 0]), GAMMA
    )
    _, g, _, _, r = matrices()
    for t in range(6):
        assert torch.allclose(value_s[:, t], -states[:, t] @ cost_to_go(6 - t))
        following = states[:, t + 1] @ cost_to_go(5 - t) @ g
        expected = -actions[:, t] @ r - GAMMA * following
        assert torch.allclose(value_a[:, t], GAMMA**t * expected)


def test_the_sum_of_the_actions_derivatives_is_the_gradient_of_the_gain() -> None:
    """V_theta of a = K s: that of the expected return, by differentiating its closed form."""
    torch.manual_seed(0)
    steps = 6
    states, actions = real_paths(4, steps, noise=0.0)
    on_policy = torch.ones(4, steps, dtype=torch.double)
    partials = linear_partials(states[:, :-1], actions)
    value_a, _ = backward_recursion(partials, on_policy, torch.zeros_like(states[:, 0]), GAMMA)
    found = torch.einsum("bka,bks->as", value_a, states[:, :-1])
    f, g, k, q, r = matrices()
    gain = k.clone().requires_grad_()
    moments, value = states[:, 0].T @ states[:, 0], torch.zeros((), dtype=torch.double)
    closed = f + g @ gain
    for t in range(steps):
        value = value - 0.5 * GAMMA**t * torch.trace((q + gain.T @ r @ gain) @ moments)
        moments = closed @ moments @ closed.T
    (expected,) = torch.autograd.grad(value, gain)
    assert torch.allclose(found, expected)


def test_the_recursion_has_the_known_value_gradient_as_its_mean_with_noise() -> None:
    torch.manual_seed(0)
    states, actions = real_paths(200_000, 6, noise=0.3)
    on_policy = torch.ones(len(states), 6, dtype=torch.double)
    partials = linear_partials(states[:, :-1], actions)
    _, value_s = backward_recursion(partials, on_policy, torch.zeros_like(states[:, 0]), GAMMA)
    deviation = value_s[:, 0].std(0) / len(states) ** 0.5
    expected = -states[0, 0] @ cost_to_go(6)
    assert expected.abs().min() > 20 * deviation.max()  # the test could tell
    assert (value_s[:, 0].mean(0) - expected).abs().max() < 4 * deviation.max()


def test_weighted_paths_of_another_policy_have_the_same_mean() -> None:
    """Those of a policy with no gain at all, and more noise."""
    torch.manual_seed(0)
    f, g, k, _, _ = matrices()
    rows, steps, narrow, wide = 400_000, 3, 0.3, 0.6
    states = [torch.randn(1, S, dtype=torch.double).expand(rows, S) * 0.3]
    actions, weights = [], []
    for _ in range(steps):
        action = wide * torch.randn(rows, A, dtype=torch.double)
        target = torch.distributions.Normal(states[-1] @ k.T, narrow).log_prob(action).sum(-1)
        behaviour = torch.distributions.Normal(torch.zeros(()), wide).log_prob(action).sum(-1)
        noise = 0.1 * torch.randn(rows, S, dtype=torch.double)
        states.append(states[-1] @ f.T + action @ g.T + noise)
        actions.append(action)
        weights.append((target - behaviour).exp())
    path, weight = torch.stack(states, 1), torch.stack(weights, 1)
    partials = linear_partials(path[:, :-1], torch.stack(actions, 1))
    _, value_s = backward_recursion(partials, weight, torch.zeros_like(states[0]), GAMMA)
    deviation = value_s[:, 0].std(0) / rows**0.5
    expected = -states[0][0] @ cost_to_go(steps)
    assert expected.abs().max() > 20 * deviation.max()
    assert ((value_s[:, 0].mean(0) - expected).abs() < 4 * deviation).all()


def test_gradients_explode_with_the_horizon_where_the_closed_loop_is_unstable() -> None:
    """By the largest eigenvalue of F + G K each step, here 1.5, discounted."""
    f = torch.eye(S, dtype=torch.double) * 1.5
    norms = []
    for steps in (10, 20):
        each = (1, steps)
        zeros = torch.zeros(*each, A, dtype=torch.double)
        partials = Partials(
            torch.ones(*each, S, dtype=torch.double),
            zeros,
            f.expand(*each, S, S),
            torch.zeros(*each, S, A, dtype=torch.double),
            torch.zeros(*each, A, S, dtype=torch.double),
        )
        on_policy, end = (torch.ones(*size, dtype=torch.double) for size in (each, (1, S)))
        norms.append(backward_recursion(partials, on_policy, 0 * end, 1.0)[1][0, 0].norm())
    assert float(norms[1] / norms[0]) == pytest.approx((1.5**20 - 1) / (1.5**10 - 1))


def test_jacobians_are_by_rows() -> None:
    x = torch.randn(B, S, dtype=torch.double, requires_grad=True)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2] ** 2], 1)
    (found,) = jacobian(y, [x])
    zero = torch.zeros(B, dtype=torch.double)
    expected = [torch.stack([x[:, 1], x[:, 0], zero], 1), torch.stack([zero, zero, 2 * x[:, 2]], 1)]
    assert torch.allclose(found, torch.stack(expected, 1))
