"""SVG(infinity) along real paths, and what SVG(1) shares: noise, batches, refusals."""

from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RescaleAction
from small_svg import GAMMA, A, B, K, S, gradient, svg, windows
from tensordict import TensorDict
from torch import Tensor, nn

from lit_mbrl.algorithms import SVG1, SVGInfinity
from lit_mbrl.data import EnvironmentReplay
from lit_mbrl.dynamics import infer_noise, step_with_noise
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.networks import Actor
from lit_mbrl.objectives import backward_recursion

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


def actor_gradient(agent: SVGInfinity, batch: TensorDict) -> Tensor:
    """Of what `training_step` minimises."""
    return gradient(agent.actor_loss(*agent.go_backwards(batch)), agent.actor)


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


# Learning


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


# Batches


def steps(number: int, terminated: Callable[[int], bool]) -> EnvironmentReplay:
    replay = EnvironmentReplay(100, 3, with_path=True, recent=4)
    for t in range(number):
        frame = {
            "observation": torch.full((1, S), float(t)),
            "action": torch.full((1, A), float(t)),
            "next": {
                "observation": torch.full((1, S), t + 0.5 if terminated(t) else t + 1.0),
                "reward": torch.ones(1, 1),
                "terminated": torch.tensor([[terminated(t)]]),
                "truncated": torch.tensor([[False]]),
            },
        }
        replay.add(TensorDict(frame, batch_size=[1]), torch.tensor([-float(t)]))
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
        (lambda: SVG1(S, A, "never").expect_batches(3, 5), "data.real_ratio"),
        (lambda: SVGInfinity(S, A, "never", plan_length=0), "model.plan_length"),
        (lambda: SVGInfinity(S, A, "never").expect_batches(3, 5), "data.real_ratio"),
        (lambda: SVGInfinity(S, A, "never", actor_max_norm=0.0), "model.actor_max_norm"),
        (lambda: SVGInfinity(S, A, "never", max_weight=0.0), "model.max_weight"),
        (lambda: SVGInfinity(S, A, "never", policy_std=0.0), "model.policy_std"),
        (lambda: SVG1(S, A, "never", policy_std=-1.0), "model.policy_std"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], option: str) -> None:
    with pytest.raises(ConfigurationError, match=option):
        make()
