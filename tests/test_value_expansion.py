"""Value expansion: MVE's and STEVE's targets, their special cases, and the algorithms on MVE's."""

from collections.abc import Callable

import pytest
import torch
from linear_quadratic import GAMMA, LinearActor, System
from small_agents import (
    FALLS,
    MODEL,
    SMALL,
    A,
    B,
    S,
    assert_critic_follows,
    equal,
    move,
    q,
    train,
    transitions,
)
from tensordict import TensorDict
from torch import Tensor
from torch.distributions import Normal

from lit_mbrl.algorithms import MPPVE, SAC, SACMPPVE, SACMVE, SACMVEMPI, Agent
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.objectives import (
    candidate_targets,
    soft_expansion,
    td_k_targets,
    unroll,
)

ALPHA = 0.3


def test_a_path_is_a_rollout_of_the_policy_that_ends_where_the_model_says() -> None:
    """Against a loop over rows, in a model without noise; a terminal state may be infinite."""
    torch.manual_seed(0)
    weight = torch.randn(S, A)

    def policy(state: Tensor) -> tuple[Tensor, Tensor]:
        return state[..., :A].tanh(), state.sum(-1)

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        following, ended = state + action @ weight.T, state[..., 0] > 0.8
        return torch.where(ended.unsqueeze(-1), torch.inf, following), state.sum(-1), ended

    start, ended = torch.randn(40, S), torch.rand(40) < 0.2
    path = unroll(start, 4, policy, step, ended)
    assert path.observation.shape == (40, 5, S) and path.reward.shape == (40, 4)
    for i in range(40):
        state, over = start[i : i + 1], bool(ended[i])
        for h in range(5):
            action, log_prob = policy(state)
            assert bool(path.ended[i, h]) == over
            # Sums that all but cancel keep the rounding of their terms, which are of order 1.
            for found, expected in (
                (path.observation[i, h], state[0]),
                (path.action[i, h], action[0]),
                (path.log_prob[i, h], log_prob[0]),
            ):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
            if h < 4:
                following, reward, ends = step(state, action)
                assert path.reward[i, h].item() == pytest.approx(
                    0 if over else reward.item(), abs=1e-6
                )
                over = over or bool(ends)
                state = state if over else following
    assert 0 < path.ended[:, -1].sum() < 40


def random_paths(steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and ends [B, H + 1], as a path has them: zero and true behind the end."""
    ended = (torch.rand(B, steps) < 0.25).cummax(1).values
    reward = torch.randn(B, steps)
    reward[:, 1:] *= ~ended[:, :-1]
    return reward, torch.randn(B, steps), ended


@pytest.mark.parametrize("horizon", [0, 1, 4])
def test_targets_equal_naive_loops(horizon: int) -> None:
    torch.manual_seed(0)
    reward, value, ended = random_paths(horizon + 1)
    entropy = torch.randn(B, horizon)
    targets = td_k_targets(reward, entropy, ended, value[:, -1], GAMMA)
    candidates = candidate_targets(reward, ended, value, GAMMA)
    for i in range(B):
        for t in range(horizon + 1):
            if t > 0 and ended[i, t - 1]:
                continue  # behind the end there is no state
            expected, discount = 0.0, 1.0
            for m in range(t, horizon + 1):
                expected += discount * reward[i, m].item()
                expected += discount * entropy[i, m - 1].item() if m > t else 0.0
                discount *= GAMMA
                if ended[i, m]:
                    break
            else:
                expected += discount * value[i, -1].item()
            assert targets[i, t].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        for h in range(horizon + 1):
            expected = sum(GAMMA**m * reward[i, m].item() for m in range(h + 1))
            expected += 0 if ended[i, h] else GAMMA ** (h + 1) * value[i, h].item()
            assert candidates[i, h].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_expanding_the_true_value_changes_nothing() -> None:
    """In a linear-quadratic system whose V is that of the policy, every target is Q(s, a)."""
    torch.manual_seed(0)
    system = System()
    actor = LinearActor(0.3 * torch.randn(A, S, dtype=torch.float64))
    K, F = actor.gain.detach(), system.F.detach()
    for _ in range(500):  # V^pi by the Lyapunov equation
        L = F + system.G @ K
        system.P = system.U + K.T @ system.V @ K + GAMMA * L.T @ system.P @ L
    state = torch.randn(30, S, dtype=torch.float64)
    action = torch.randn(30, A, dtype=torch.float64)
    following, reward, _ = system.step(state, action)
    path = unroll(following, 4, lambda s: (actor(s), s.new_zeros(s.shape[:-1])), system.step)
    rewards = torch.cat([reward.unsqueeze(1), path.reward], 1)
    q = system.q(state, action)
    candidates = candidate_targets(rewards, path.ended, system.value(path.observation), GAMMA)
    assert torch.allclose(candidates, q.unsqueeze(1).expand(-1, 5), atol=1e-9)
    targets = td_k_targets(
        rewards, torch.zeros(30, 4), path.ended, system.value(path.observation[:, -1]), GAMMA
    )
    assert torch.allclose(targets[:, 0], q, atol=1e-9)
    for t in range(4):
        expected = system.q(path.observation[:, t], path.action[:, t])
        assert torch.allclose(targets[:, t + 1], expected, atol=1e-9)
    system.noise = 0.3  # and in its mean with noise, up to a constant of the state
    many = following[:1].expand(200_000, -1)
    path = unroll(many, 3, lambda s: (actor(s), s.new_zeros(s.shape[:-1])), system.step)
    closed = [system.noise**2 * torch.trace(system.P) * GAMMA**h for h in range(4)]
    means = candidate_targets(
        torch.cat([reward[:1].expand(200_000, 1), path.reward], 1),
        path.ended,
        system.value(path.observation),
        GAMMA,
    ).mean(0)
    for h in range(4):
        # Each noisy step before the value costs tr(P) sigma^2, discounted.
        expected = q[0] - GAMMA * sum(closed[1 : h + 1])
        assert means[h].item() == pytest.approx(expected.item(), abs=0.01)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SACMVE(S, A, FALLS, horizon=0, **MODEL),  # type: ignore[arg-type]
        lambda: SACMVEMPI(S, A, FALLS, horizon=0, **MODEL),  # type: ignore[arg-type]
        lambda: SACMPPVE(S, A, FALLS, plan_length=1, actor_max_norm=1e9, **MODEL),  # type: ignore[arg-type]
    ],
)
def test_without_imagined_steps_a_training_step_is_sac_bit_for_bit(
    make: Callable[[], Agent],
) -> None:
    """MVE with H = 0 and plans of one step, with the same weights, batch and draws."""
    torch.manual_seed(0)
    ours, sac = make(), SAC(S, A, **SMALL)  # type: ignore[arg-type]
    before = {name: weight.clone() for name, weight in sac.state_dict().items()}
    ours.load_state_dict(before, strict=False)
    batch = torch.stack([transitions(), transitions()])
    trained, theirs = train(ours, batch), train(sac, batch)
    parts = ("actor", "critic", "target_critic", "temperature")
    assert equal(trained, theirs, *parts)
    assert not any(equal(trained, before, part) for part in parts)


def test_mixed_policy_improvement_differs_in_the_states_of_the_policy_alone() -> None:
    """After one update the critics are the same to the last bit and the actors are not."""
    torch.manual_seed(0)
    real = SACMVE(S, A, FALLS, horizon=2, **MODEL)  # type: ignore[arg-type]
    mixed = SACMVEMPI(S, A, FALLS, horizon=2, **MODEL)  # type: ignore[arg-type]
    mixed.load_state_dict(real.state_dict())
    batch = transitions().unsqueeze(0)
    ours, theirs = train(real, batch), train(mixed, batch)
    assert equal(ours, theirs, "critic", "target_critic", "dynamics")
    assert not equal(ours, theirs, "actor")


def test_an_expansion_has_every_state_that_no_termination_comes_before() -> None:
    """Its rows and targets by a loop, with the path's own draws; and only Q has a gradient."""
    torch.manual_seed(0)
    agent = SACMVE(S, A, FALLS, horizon=3, gamma=GAMMA, initial_temperature=0.3, **MODEL)  # type: ignore[arg-type]
    batch, alpha = transitions(batch=60), agent.temperature()
    following = batch["next"]
    torch.manual_seed(1)
    expansion = agent.expand(batch)
    torch.manual_seed(1)
    with torch.no_grad():
        path = unroll(
            following["observation"],
            3,
            agent.actor.sample,
            agent.dynamics.step,
            following["terminated"],
        )
        end = agent.target_critic(path.observation[:, -1], path.action[:, -1:]).amin(0)
    rows = []
    for i in range(60):
        value, mine = end[i] - alpha * path.log_prob[i, -1], []
        for t in range(3, 0, -1):  # imagined transitions, from the last one back
            value = path.reward[i, t - 1] + GAMMA * value * ~path.ended[i, t]
            if not path.ended[i, t - 1]:
                mine.insert(0, (path.observation[i, t - 1], path.action[i, t - 1], value))
            value = value - alpha * path.log_prob[i, t - 1]
        value = batch["reward"][i, 0] + GAMMA * value * ~path.ended[i, 0]
        rows += [(batch["observation"][i], batch["action"][i, 0], value), *mine]
    assert 60 < len(rows) < 240
    for found, expected in zip(expansion, zip(*rows, strict=True), strict=True):
        wanted = torch.stack(expected)
        assert torch.allclose(found.view(wanted.shape), wanted, atol=1e-5)
    loss, _ = agent.critic.loss(*expansion)
    q = agent.critic(expansion.observation, expansion.action)
    squares = [0.5 * (x - expansion.target).square().mean().item() for x in q]
    assert loss.item() == pytest.approx(sum(squares), rel=1e-5)
    loss.backward()
    touched = {name.split(".")[0] for name, p in agent.named_parameters() if p.grad is not None}
    assert touched == {"critic"}


def naive_path(
    agent: SACMVE | SACMVEMPI, row: TensorDict, noise: list[Tensor]
) -> tuple[list[tuple[Tensor, Tensor, float]], str]:
    """States and actions from a transition on, each with its target; and how the path ended."""
    path = [(row["observation"], row["action"][0], row["reward"].item(), 0.0)]
    state, value = row["next", "observation"], 0.0
    end = "real" if row["next", "terminated"] else ""
    for h in range(agent.horizon + 1):
        if end:
            break
        mean, log_std = agent.actor(state)
        raw = mean + log_std.exp() * noise[h]
        action = raw.tanh()
        density = Normal(mean, log_std.exp()).log_prob(raw) - (1 - action.square()).log()
        entropy = -ALPHA * density.sum().item()
        if h < agent.horizon:
            following, reward, _ = agent.dynamics.expected_step(state[None], action[None])
            path.append((state, action, reward.item(), entropy))
            state, end = following[0], "imagined" if following[0, 0] < 0 else ""
        else:
            value = min(q(agent.target_critic, c, state, action).item() for c in range(2)) + entropy
    rows = []
    for t, (state, action, target, _) in enumerate(path):
        for m in range(t + 1, len(path)):
            target += GAMMA ** (m - t) * (path[m][2] + path[m][3])
        rows.append((state, action, target + GAMMA ** (len(path) - t) * value))
    return rows, end


@pytest.mark.parametrize("horizon", [0, 1, 3])
@pytest.mark.parametrize("algorithm", [SACMVE, SACMVEMPI])
def test_the_critics_gradient_is_that_of_a_naive_loop(
    algorithm: type[SACMVE | SACMVEMPI], horizon: int
) -> None:
    """As a training step takes it: targets are numbers, on every state that no end comes before."""
    torch.manual_seed(0)
    model = {**MODEL, "initial_temperature": ALPHA, "gamma": GAMMA}
    agent = algorithm(S, A, FALLS, horizon=horizon, **model)  # type: ignore[arg-type]
    agent.dynamics.step = agent.dynamics.expected_step  # type: ignore[method-assign]
    move(agent.target_critic)
    batch, rows, met = transitions(batch=40), [], set()
    torch.manual_seed(1)  # as `train` does
    noise = torch.stack([torch.randn(40, A) for _ in range(horizon + 1)])
    for i in range(40):
        mine, end = naive_path(agent, batch[i], list(noise[:, i]))
        rows += mine
        met.add(end)
    assert met == {"", "real", "imagined"} - ({"imagined"} if horizon == 0 else set())
    loss = torch.zeros(())
    for state, action, target in rows:
        for c in range(2):
            loss = loss + 0.5 * (q(agent.critic, c, state, action) - target) ** 2 / len(rows)
    assert_critic_follows(agent, batch, loss)


def test_soft_expansion_of_no_steps_is_the_transitions() -> None:
    batch = transitions()
    state, ended = batch["next", "observation"], batch["next", "terminated"]

    def unused(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise AssertionError("nothing is imagined")

    path = unroll(state, 0, lambda s: (s[..., :A], s[..., 0]), unused, ended)
    zero = torch.zeros(())
    found = soft_expansion(batch, path, lambda s, a: s[:, 0].expand(2, -1), zero, GAMMA)
    assert torch.equal(found.observation, batch["observation"])
    assert torch.equal(found.action, batch["action"])
    expected = batch["reward"][:, 0] + GAMMA * state[:, 0] * ~ended
    assert torch.allclose(found.target, expected)


def test_sac_mppve_plans_as_mppve_does() -> None:
    """The same plans, to the last bit, and the same gradient, which stops at the model."""
    torch.manual_seed(0)
    ours = SACMPPVE(S, A, FALLS, plan_length=3, **MODEL)  # type: ignore[arg-type]
    mppve = MPPVE(S, A, FALLS, plan_length=3, plan_gradient_cut=False, **MODEL)  # type: ignore[arg-type]
    mppve.load_state_dict(ours.state_dict())
    observation = torch.randn(50, S)
    gradients = []
    for agent in (ours, mppve):
        torch.manual_seed(1)
        plan = agent.sample_plan(observation)
        weights = torch.linspace(-1, 1, plan.action.numel()).view_as(plan.action)
        ((weights * plan.action).sum() + plan.log_prob.sum()).backward()
        gradients.append((plan, [p.grad for p in agent.actor.parameters()], agent))
    (plan, gradient, _), (theirs, expected, _) = gradients
    assert torch.equal(plan.action, theirs.action)
    assert torch.allclose(plan.log_prob, theirs.log_prob, atol=1e-5)
    assert all(torch.allclose(g, e, atol=1e-4) for g, e in zip(gradient, expected, strict=True))
    assert all(p.grad is None for p in ours.dynamics.parameters())
    assert ours.target_entropy == mppve.target_entropy == -3.0


@pytest.mark.parametrize(
    ("algorithm", "name", "value"),
    [
        (SACMVE, "horizon", -1),
        (SACMVEMPI, "horizon", -1),
        (SACMPPVE, "plan_length", 0),
        (SACMPPVE, "actor_max_norm", 0.0),
    ],
)
def test_bad_arguments_are_one_line(algorithm: type[Agent], name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"^model.{name}: {value} was given; allowed: .+$"):
        algorithm(S, A, "never", **{**MODEL, name: value})
