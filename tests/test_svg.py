"""SVG(1) and SVG(infinity): noise inferred along real paths, and the gradients that follow."""

from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RescaleAction
from tensordict import TensorDict
from torch import Tensor, nn

from lit_mbrl.algorithms import SVG1, SVGInfinity
from lit_mbrl.data import EnvironmentReplay
from lit_mbrl.dynamics import infer_noise, step_with_noise
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.networks import Actor
from lit_mbrl.objectives import Partials, backward_recursion, jacobian

S, A, B, K = 3, 2, 6, 5
GAMMA = 0.9


def svg(algorithm: type, **kwargs: object) -> SVG1 | SVGInfinity:
    torch.manual_seed(0)
    small = {"hidden_sizes": [16, 16], "dynamics_hidden_sizes": [8, 8], "gamma": GAMMA}
    return algorithm(S, A, "never", **{**small, **kwargs})


def windows(k: int = K, ends: bool = True) -> TensorDict:
    """Of random paths; some end in a termination before their last step if they may."""
    path = torch.randn(B, k + 1, S)
    length = torch.randint(1, k + 1, (B,)) if ends else torch.full((B,), k)
    mask = torch.arange(k) < length.unsqueeze(-1)
    action = (torch.rand(B, k, A) * 1.8 - 0.9) * mask.unsqueeze(-1)
    return TensorDict(
        {
            "observation": path[:, 0],
            "path": path,
            "action": action,
            "reward": torch.randn(B, k) * mask,
            "log_prob": torch.randn(B, k) - 1,
            "mask": mask,
            "next": {"observation": path[torch.arange(B), length], "terminated": length < k},
        },
        batch_size=[B],
    )


def gradient(loss: Tensor, module: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])


def actor_gradient(agent: SVGInfinity, batch: TensorDict) -> Tensor:
    """Of what `training_step` minimises."""
    return gradient(agent.actor_loss(*agent.go_backwards(batch)), agent.actor)


# Noise


def test_a_real_episode_is_simulated_again_with_the_noise_that_was_inferred() -> None:
    """Any policy and any model would have made it, with some noise."""
    env = RescaleAction(gymnasium.make("InvertedPendulum-v5"), np.float32(-1), np.float32(1))
    torch.manual_seed(0)
    agent = SVGInfinity(4, 1, "never", hidden_sizes=[16], dynamics_weight_decay=[0.0] * 3)
    state, _ = env.reset(seed=0)
    path, actions, ended = [state], [], False
    while not ended:
        action = np.random.default_rng(len(path)).uniform(-1, 1, 1)
        state, _, ended, _, _ = env.step(action)
        path.append(state)
        actions.append(action)
    states, taken = (torch.tensor(np.array(part), dtype=torch.float) for part in (path, actions))
    eta = agent.actor.noise(states[:-1], taken)
    xi = infer_noise(agent.dynamics, states[:-1], taken, states[1:])
    simulated = states[:1]
    for t in range(len(taken)):
        action = agent.actor.action(simulated, eta[t])
        assert torch.allclose(action[0], taken[t], atol=1e-4)
        simulated, _ = step_with_noise(agent.dynamics, simulated, action, xi[t])
        assert torch.allclose(simulated[0], states[t + 1], atol=1e-4)


def test_the_density_of_an_action_is_that_of_drawing_it() -> None:
    actor = Actor(S, A, [16])
    observation = torch.randn(B, S)
    action, log_prob = actor.sample(observation)
    assert torch.allclose(actor.log_prob(observation, action), log_prob, atol=1e-4)


def test_actions_at_the_bounds_have_a_finite_noise() -> None:
    actor = Actor(S, A, [16])
    observation, action = torch.randn(B, S), torch.ones(B, A)
    assert actor.noise(observation, action).isfinite().all()
    assert torch.allclose(actor.action(observation, actor.noise(observation, action)), action)


def test_a_policy_of_fixed_deviation_has_it_everywhere() -> None:
    actor = Actor(S, A, [16], std=0.3)
    mean, log_std = actor(torch.randn(B, S))
    assert mean.shape == log_std.shape == (B, A)
    assert torch.allclose(log_std.exp(), torch.tensor(0.3))


# The recursion


def simulated_return(agent: SVGInfinity, batch: TensorDict) -> Tensor:
    """Mean return of the paths, simulated by naive loops with the noise that was inferred.

    Rewards are weighted by the ratios of all actions up to them.
    """
    states, actions, mask = batch["path"], batch["action"], batch["mask"]
    total = torch.zeros(())
    for row in range(B):
        state, weight = states[row, :1], 1.0
        for t in range(int(mask[row].sum())):
            real, taken = states[row, t][None], actions[row, t][None]
            with torch.no_grad():
                eta = agent.actor.noise(real, taken)
                xi = infer_noise(agent.dynamics, real, taken, states[row, t + 1][None])
            action = agent.actor.action(state, eta)
            following, reward = step_with_noise(agent.dynamics, state, action, xi)
            if agent.reward is not None:
                reward = agent.reward(state, action, following)
            state = following
            density = agent.log_prob(real, taken).detach() - batch["log_prob"][row, t]
            weight = weight * float(density.exp())
            total = total + agent.gamma**t * min(weight, agent.max_weight) * reward[0]
    return total / B


@pytest.mark.parametrize("reward", [None, "lit_mbrl.envs.rewards.centred_pendulum"])
@pytest.mark.parametrize("k", [1, K])
def test_the_recursion_is_automatic_differentiation_of_the_simulated_paths(
    k: int, reward: str | None
) -> None:
    agent, batch = svg(SVGInfinity, plan_length=k, max_weight=1.5, reward=reward), windows(k)
    assert agent.weights(batch).unique().numel() > B // 2  # nearly each step has its own
    assert k == 1 or not batch["mask"].all()
    expected = gradient(-simulated_return(agent, batch), agent.actor)
    assert expected.norm() > 1e-3
    assert torch.allclose(actor_gradient(agent, batch), expected, atol=1e-5)


@pytest.mark.parametrize("max_weight", [0.3, 1.0, 5.0])
def test_the_weight_of_a_path_is_the_product_of_its_ratios_cut_off(max_weight: float) -> None:
    agent, batch = svg(SVGInfinity, plan_length=K, max_weight=max_weight), windows()
    log_ratio = torch.randn(B, K)
    log_prob = agent.log_prob(batch["path"][:, :-1], batch["action"]).detach()
    batch["log_prob"], ratio = log_prob - log_ratio, log_ratio.exp()
    found = agent.weights(batch).cumprod(1)
    cut = 0
    for row in range(B):
        product = 1.0
        for t in range(int(batch["mask"][row].sum())):
            product *= float(ratio[row, t])
            assert float(found[row, t]) == pytest.approx(min(product, max_weight), rel=1e-4)
            cut += product > max_weight
    assert 0 < cut < batch["mask"].sum()
    assert (found[~batch["mask"]] == 0).all()


def test_actions_that_have_become_impossible_leave_the_gradient_finite() -> None:
    """Also where the next ones are as much likelier now, in float32."""
    agent, batch = svg(SVGInfinity, plan_length=K), windows(ends=False)
    log_prob = agent.log_prob(batch["path"][:, :-1], batch["action"]).detach()
    batch["log_prob"] = log_prob - torch.tensor([-110.0, 0.0, 105.0, -500.0, 500.0])
    weight = agent.weights(batch)
    assert weight.isfinite().all() and (weight.cumprod(1) <= 1.001).all()
    assert actor_gradient(agent, batch).isfinite().all()


def test_the_value_gradient_is_that_of_the_return_by_the_first_state() -> None:
    """V_s of the recursion, with a value at the end that is not zero."""
    agent, batch = svg(SVGInfinity, plan_length=K), windows(ends=False)
    weight = torch.randn(B, S)
    partials, eta = agent.partials(batch)
    states, actions = batch["path"], batch["action"]
    flat = (part.flatten(0, 1) for part in (states[:, :-1], actions, states[:, 1:]))
    xi = infer_noise(agent.dynamics, *flat).view(B, K, S)
    first = states[:, 0].clone().requires_grad_()
    state, value = first, torch.zeros(())
    for t in range(K):
        action = agent.actor.action(state, eta[:, t])
        state, reward = step_with_noise(agent.dynamics, state, action, xi[:, t])
        value = value + GAMMA**t * reward.sum()
    value = value + GAMMA**K * (weight * state).sum()
    (expected,) = torch.autograd.grad(value, first)
    _, value_s = backward_recursion(partials, torch.ones(B, K), weight, GAMMA)
    assert torch.allclose(value_s[:, 0], expected, atol=1e-4)


def test_what_comes_after_a_termination_is_another_episode() -> None:
    agent, batch = svg(SVGInfinity, plan_length=K), windows()
    before = actor_gradient(agent, batch)
    length = batch["mask"].sum(1)
    behind = torch.arange(K + 1) > length.unsqueeze(-1)
    batch["path"] = torch.where(behind.unsqueeze(-1), 7.0, batch["path"])
    assert behind.any()
    assert torch.allclose(actor_gradient(agent, batch), before, atol=1e-6)


# A linear system with Gaussian noise, a linear policy, quadratic rewards


def matrices() -> tuple[Tensor, ...]:
    """s' = F s + G a + noise, a = K s + noise, r = -s'Q s / 2 - a'R a / 2."""
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    q, r = normal(S, S), normal(A, A)
    return 0.4 * normal(S, S), normal(S, A), 0.3 * normal(A, S), q @ q.T, r @ r.T


def linear_partials(state: Tensor, action: Tensor) -> Partials:
    """Of that system, at states [..., S] and actions [..., A]."""
    f, g, k, q, r = matrices()
    each = state.shape[:-1]
    return Partials(
        -state @ q, -action @ r, f.expand(*each, S, S), g.expand(*each, S, A), k.expand(*each, A, S)
    )


def cost_to_go(steps: int) -> Tensor:
    """P of V(s) = -s'P s / 2 + constant of the linear policy: Lyapunov's recursion."""
    f, g, k, q, r = matrices()
    closed, value = f + g @ k, torch.zeros(S, S, dtype=torch.double)
    for _ in range(steps):
        value = q + k.T @ r @ k + GAMMA * closed.T @ value @ closed
    return value


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


class Unstable(nn.Module):
    """s' = F s + G a + noise with an eigenvalue of 1.12, as a model that knows itself."""

    elites = torch.arange(1)
    f, g = torch.tensor([[1.0, 0.1], [0.15, 1.0]]), torch.tensor([[0.0], [0.3]])

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The next state without noise, and r = -|s|^2 - |a|^2 / 10."""
        reward = -state.square().sum(-1) - 0.1 * action.square().sum(-1)
        return state @ self.f.T + action @ self.g.T, reward

    def __call__(self, inputs: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        following, reward = self.step(inputs[..., :2], inputs[..., 2:])
        mean = torch.cat([following - inputs[..., :2], reward.unsqueeze(-1)], -1)
        return mean, torch.full_like(mean, -6.0)


@torch.no_grad()
def made_by(act: Callable[[Tensor], Tensor], rows: int, k: int) -> TensorDict:
    """Windows of k steps of a policy in the unstable system."""
    state = torch.randn(rows, 2) * 0.3
    states, actions, rewards = [state], [], []
    for _ in range(k):
        action = act(state)
        state, reward = Unstable().step(state, action)
        state = state + 0.02 * torch.randn(rows, 2)
        states.append(state)
        actions.append(action)
        rewards.append(reward)
    found = {"path": states, "action": actions, "reward": rewards}
    windows = {key: torch.stack(parts, 1) for key, parts in found.items()}
    mask = torch.ones(rows, k, dtype=torch.bool)
    return TensorDict({**windows, "mask": mask}, batch_size=[rows])


def test_svg_infinity_learns_to_control_an_unstable_system() -> None:
    """In 60 steps from a policy that loses it, to nearly the optimal linear controller's cost."""
    torch.manual_seed(0)
    agent = SVGInfinity(2, 1, "never", plan_length=15, hidden_sizes=[32, 32], learning_rate=3e-3)
    agent.configure_optimizers()
    agent.dynamics = Unstable()
    agent.log_step = lambda **metrics: None  # type: ignore[method-assign]

    def cost(act: Callable[[Tensor], Tensor]) -> float:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return -float(made_by(act, 500, 40)["reward"].sum(1).mean())

    before = cost(agent.actor.mode)
    for _ in range(60):
        windows = made_by(agent.act, 32, 15)
        windows["log_prob"] = agent.log_prob(windows["path"][:, :-1], windows["action"]).detach()
        agent.training_step(windows.unsqueeze(0), 0)
    f, g, value = Unstable.f, Unstable.g, torch.zeros(2, 2)
    for _ in range(300):  # Riccati's recursion
        gain = torch.linalg.solve(0.1 * torch.eye(1) + g.T @ value @ g, g.T @ value @ f)
        value = torch.eye(2) + f.T @ value @ (f - g @ gain)
    optimal = cost(lambda state: (-state @ gain.T).clamp(-1, 1))
    assert cost(agent.actor.mode) < 1.5 * optimal < before / 100


# SVG(1)


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


# Batches


def steps(number: int, terminated: Callable[[int], bool]) -> EnvironmentReplay:
    replay = EnvironmentReplay(100, 3, with_path=True, recent=4)
    for t in range(number):
        frame = {
            "observation": torch.full((1, S), float(t)),
            "action": torch.full((1, A), float(t)),
            "log_prob": torch.tensor([-float(t)]),
            "next": {
                "observation": torch.full((1, S), t + 0.5 if terminated(t) else t + 1.0),
                "reward": torch.ones(1, 1),
                "terminated": torch.tensor([[terminated(t)]]),
                "truncated": torch.tensor([[False]]),
            },
        }
        replay.add(TensorDict(frame, batch_size=[1]))
    return replay


def test_windows_have_the_states_on_their_way_and_the_densities_of_their_actions() -> None:
    replay = steps(10, lambda t: t == 6)
    found = replay.windows(torch.tensor([1, 5]))
    assert found["path"][..., 0].tolist()[0] == [1.0, 2.0, 3.0, 4.0]
    assert found["path"][1, :3, 0].tolist() == [5.0, 6.0, 6.5]  # and no further
    assert found["mask"][1].tolist() == [True, True, False]
    assert found["log_prob"][0].tolist() == [-1.0, -2.0, -3.0]


def test_recent_windows_alone_are_drawn() -> None:
    torch.manual_seed(0)
    replay = steps(20, lambda t: False)
    drawn = replay.sample_windows(500)["observation"][:, 0].int().unique().tolist()
    assert drawn == [14, 15, 16, 17]  # of three steps, the last of which is 19


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda: SVG1(S, A, "never", max_weight=0.0), "model.max_weight"),
        (lambda: SVG1(S, A, "never").check_batch(3, 5), "data.real_ratio"),
        (lambda: SVGInfinity(S, A, "never", plan_length=0), "model.plan_length"),
        (lambda: SVGInfinity(S, A, "never").check_batch(3, 5), "data.real_ratio"),
        (lambda: SVGInfinity(S, A, "never", actor_max_norm=0.0), "model.actor_max_norm"),
        (lambda: SVGInfinity(S, A, "never", max_weight=0.0), "model.max_weight"),
        (lambda: SVGInfinity(S, A, "never", policy_std=0.0), "model.policy_std"),
        (lambda: SVG1(S, A, "never", policy_std=-1.0), "model.policy_std"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], option: str) -> None:
    with pytest.raises(ConfigurationError, match=option):
        make()


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
