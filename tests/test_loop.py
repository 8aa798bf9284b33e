"""LOOP and its baselines against paper 003: scores, values, divergence, SARSA."""

from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from tensordict import TensorDict
from torch import Tensor, nn

from lit_mbrl.algorithms import LOOP, LOOPSARSA, SAC
from lit_mbrl.data import windows_from
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.objectives import sarsa_target
from lit_mbrl.planning import ARC, CEM, ImaginedReturn, Problem, TerminalValue

S, A, B, H = 3, 2, 4, 3
SMALL: dict[str, Any] = {
    "hidden_sizes": [16, 16],
    "dynamics_hidden_sizes": [8],
    "dynamics_weight_decay": [0.0, 0.0],
}


def falls(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    """Ends an episode where the first coordinate is negative."""
    return following[..., 0] < 0


class Linear(nn.Module):
    """A deterministic stand-in for the dynamics: s' = F s + G a, with a quadratic reward."""

    def __init__(self, ends: bool = False):
        super().__init__()
        self.f, self.g = torch.eye(S) + 0.1 * torch.randn(S, S), 0.5 * torch.randn(S, A)
        self.ends = ends

    def step(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        following = observation @ self.f.T + action @ self.g.T
        reward = -(observation.square().sum(-1) + action.square().sum(-1))
        ended = falls(observation, action, following) if self.ends else torch.zeros(len(reward)) > 0
        return following, reward, ended


def make(**arguments: Any) -> LOOP:
    torch.manual_seed(0)
    planner = ARC(horizon=H, candidates=20, iterations=2, actor_share=0.1)
    return LOOP(S, A, "never", **{"planner": planner, "particles": 1, **SMALL, **arguments})


def with_trainer(agent: Any) -> Any:
    """As in a run, at its first environment step."""
    agent.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    agent.trainer.fit_loop.epoch_loop.batch_progress.total.ready = 1
    agent.configure_optimizers()
    return agent


def transitions(updates: int) -> TensorDict:
    shape = [updates, 32]
    return TensorDict(
        {
            "observation": torch.randn(*shape, S),
            "action": torch.rand(*shape, 1, A) * 2 - 1,
            "reward": torch.randn(*shape, 1),
            "next": {
                "observation": torch.randn(*shape, S),
                "terminated": torch.rand(*shape) < 0.3,
            },
        },
        batch_size=shape,
    )


@torch.no_grad()
@pytest.mark.parametrize("published", [False, True])
def test_scores_equal_a_naive_loop(published: bool) -> None:
    """Eq. 3, and the published code's H - 1 undiscounted rewards with Q_1 of the last action."""
    agent = make(published_score=published, gamma=0.9)
    score = agent.problem.score
    assert isinstance(score, ImaginedReturn)
    model = score.dynamics = Linear(ends=True)  # type: ignore[assignment]
    state, plans = torch.rand(B, S), torch.rand(B, 5, H, A) * 2 - 1
    found = score(state, plans)
    lengths = set()
    for b in range(B):
        for n in range(5):
            s, total, ended = state[b : b + 1], 0.0, False
            for t in range(H - 1 if published else H):
                if ended:
                    break
                s, reward, end = model.step(s, plans[b, n, t : t + 1])
                total += (1.0 if published else 0.9**t) * float(reward)
                ended = bool(end)
                lengths.add((t, ended))
            if not ended and published:
                total += float(agent.critic(s, plans[b, n, -1:].unsqueeze(0))[0])
            elif not ended:
                action = agent.actor.mode(s).unsqueeze(1)
                total += 0.9**H * float(agent.critic(s, action).min())
            assert float(found[b, n]) == pytest.approx(total, rel=1e-4, abs=1e-5)
    assert {(0, True), (1, False)} <= lengths  # some ended, some went on


def test_lookahead_to_the_optimal_value_takes_the_optimal_action() -> None:
    """With V = V* each H leads to the discounted Riccati equation's first action."""
    torch.manual_seed(0)
    model, gamma = Linear(), 0.95
    f, g = model.f.double(), 0.3 * model.g.double()
    model.g = g.float()
    value = torch.eye(S).double()
    for _ in range(500):
        gain = torch.linalg.solve(
            torch.eye(A).double() + gamma * g.T @ value @ g, gamma * g.T @ value @ f
        )
        closed = f - g @ gain
        value = torch.eye(S).double() + gain.T @ gain + gamma * closed.T @ value @ closed
    terminal = TerminalValue(lambda s, _: -((s.double() @ value) * s).sum(-1).float(), tail=0)
    state = 0.2 * torch.randn(B, S)
    for horizon in (1, 3):
        planner = CEM(horizon, candidates=400, elites=40, iterations=8)
        score = ImaginedReturn(model, "ts1", 1, gamma, terminal=terminal)
        found = planner(Problem(score, A), state).action[:, 0]
        assert torch.allclose(found, -(state.double() @ gain.T).float(), atol=0.02)


def test_learns_as_sac_does_bit_for_bit() -> None:
    """Acting by plans changes the data, and nothing of what is made of them."""
    torch.manual_seed(1)
    sac = with_trainer(SAC(S, A, hidden_sizes=SMALL["hidden_sizes"], learning_rate=1e-3))
    loop = with_trainer(make())
    parts = ("actor", "critic", "target_critic", "temperature")
    for part in parts:
        getattr(loop, part).load_state_dict(getattr(sac, part).state_dict())
    batch = transitions(updates=3)
    for agent in (sac, loop):
        torch.manual_seed(2)
        agent.training_step(batch.clone(), 0)
    for part in parts:
        other = getattr(loop, part).state_dict()
        for name, values in getattr(sac, part).state_dict().items():
            assert torch.equal(values, other[name]), name


def test_divergence_is_the_distance_of_the_plan_from_the_actors_mean() -> None:
    """Figure 4; logged is the mean over the last steps, of the plans that they were taken by."""
    agent = with_trainer(make())
    behaviour, here = agent.behaviour(copies=1), torch.zeros(1, dtype=torch.long)
    distances = []
    for step in range(4):
        agent.trainer.fit_loop.epoch_loop.batch_progress.total.ready = step + 1
        observation = torch.randn(1, S)
        behaviour(observation, here, torch.tensor([step == 0]))
        distances.append(agent._newest_divergence.clone())
        agent.training_step(transitions(updates=1), 0)
        agent.behaviour(copies=2, deterministic=True)(  # an evaluation between two steps
            torch.randn(2, S), torch.arange(2), torch.ones(2, dtype=torch.bool)
        )
        assert agent.divergence == pytest.approx(float(torch.stack(distances).mean()))
    observation = torch.randn(1, S)
    action = agent.plan(observation).action[0, 0]
    distance = (action - agent.actor.mode(observation)[0]).square().sum().sqrt()
    assert torch.equal(agent._newest_divergence, distance)


def test_a_peaked_prior_keeps_the_plan_at_the_actor() -> None:
    """ARC around the actor diverges less than CEM, which knows of none (Figure 4)."""
    observation, distance = torch.randn(50, S), {}
    planners = {
        "arc": ARC(horizon=H, candidates=50, actor_share=1.0, temperature=1e9),
        "cem": CEM(horizon=H, candidates=50, elites=5, iterations=3),
    }
    for name, planner in planners.items():
        agent = make(planner=planner)
        agent.plan(observation)
        distance[name] = float(agent._newest_divergence)
    assert distance["arc"] < 0.5 * distance["cem"]


def test_explores_by_a_candidate_and_is_evaluated_by_the_mean() -> None:
    agent = make()
    observation, copies = torch.randn(2, S), torch.arange(2)
    begins = torch.ones(2, dtype=torch.bool)
    for deterministic in (False, True):
        torch.manual_seed(3)
        action = agent.behaviour(2, deterministic)(observation, copies, begins)
        torch.manual_seed(3)
        solution = agent.plan(observation)
        expected = solution.action if deterministic else solution.sample
        assert torch.equal(action, expected[:, 0])
        assert not torch.equal(solution.action, solution.sample)


def segments(number: int) -> TensorDict:
    """Two real steps each, whose second state follows the first."""
    path = torch.randn(number, 3, S)
    return TensorDict(
        {
            "observation": path[:, :2],
            "action": torch.rand(number, 2, A) * 2 - 1,
            "reward": torch.randn(number, 2),
            "next": {
                "observation": path[:, 1:],
                "terminated": torch.rand(number, 2) < 0.4,
            },
        },
        batch_size=[number, 2],
    )


def test_sarsas_target_equals_a_naive_loop() -> None:
    torch.manual_seed(0)
    agent = LOOPSARSA(S, A, "never", planner=CEM(H, 20, 5, 2), **SMALL)
    real = segments(20)
    windows = windows_from(real, with_path=True)
    target = sarsa_target(windows, agent.target_critic, 0.9)
    ended = real["next", "terminated"][:, 0]
    assert 0 < int(ended.sum()) < 20
    for i in range(20):
        expected = real["reward"][i, 0]
        if not ended[i]:
            here = slice(i, i + 1)
            values = agent.target_critic(real["observation"][here, 1], real["action"][here, 1:])
            expected = expected + 0.9 * values.min()
        assert target[i] == pytest.approx(float(expected), rel=1e-5, abs=1e-6)


def test_sarsas_critics_learn_from_what_was_done_and_nothing_flows_into_the_target() -> None:
    agent = LOOPSARSA(S, A, "never", planner=CEM(H, 20, 5, 2), **SMALL)
    windows = windows_from(segments(8), with_path=True)
    agent.critic_loss(windows)[0].backward()
    assert all(parameter.grad is not None for parameter in agent.critic.parameters())
    assert all(parameter.grad is None for parameter in agent.target_critic.parameters())
    values = agent.critic(windows["observation"], windows["action"][:, :1])
    target = sarsa_target(windows, agent.target_critic, agent.gamma)
    naive = sum(0.5 * (values[c, i] - target[i]) ** 2 for c in range(2) for i in range(8)) / 8
    assert torch.allclose(agent.critic_loss(windows)[0], torch.as_tensor(naive))


def test_sarsas_fixed_point_is_the_value_of_the_policy_that_acted() -> None:
    """On a linear system the closed form of a linear policy's value is its own target."""
    torch.manual_seed(0)
    f, g, k = 0.9 * torch.eye(S), 0.3 * torch.randn(S, A), 0.2 * torch.randn(A, S)
    gamma, value = 0.9, torch.zeros(S, S)
    closed = f + g @ k
    for _ in range(500):  # of V(s) = -s^T value s, by Lyapunov's equation
        value = torch.eye(S) + k.T @ k + gamma * closed.T @ value @ closed

    def critic(observation: Tensor, plan: Tensor) -> Tensor:
        following = observation @ f.T + plan[:, 0] @ g.T
        reward = -(observation.square().sum(-1) + plan[:, 0].square().sum(-1))
        return (reward - gamma * ((following @ value) * following).sum(-1)).expand(2, -1)

    state = torch.randn(16, S)
    action = torch.rand(16, A)  # any first action, then the policy's
    following = state @ f.T + action @ g.T
    real = TensorDict(
        {
            "observation": torch.stack([state, following], 1),
            "action": torch.stack([action, following @ k.T], 1),
            "reward": torch.stack(
                [-(state.square().sum(-1) + action.square().sum(-1)), torch.randn(16)], 1
            ),
            "next": {
                "observation": torch.stack([following, torch.randn(16, S)], 1),
                "terminated": torch.zeros(16, 2, dtype=torch.bool),
            },
        },
        batch_size=[16, 2],
    )
    target = sarsa_target(windows_from(real, with_path=True), critic, gamma)
    assert torch.allclose(target, critic(state, action.unsqueeze(1))[0], rtol=1e-4)


def test_what_cannot_be_used_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigurationError, match=r"^model\.planner: .* no policy's plans"):
        LOOPSARSA(S, A, "never", planner=ARC(), **SMALL)
    with pytest.raises(ConfigurationError, match=r"^model\.particles: 3 was given"):
        make(sampling="ts_infinity", particles=3)
    with pytest.raises(ConfigurationError, match=r"^model\.learning_rate"):
        make(learning_rate=0.0)
