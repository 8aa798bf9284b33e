"""POPLIN (arXiv 1906.08649): its policy, what its two forms search for, and how they distil."""

from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from tensordict import TensorDict
from torch import Tensor, nn

from lit_mbrl.algorithms import POPLINA, POPLINP
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.networks import PolicyNetwork
from lit_mbrl.planning import CEM, Planner, Problem, Solution, Start
from lit_mbrl.planning.planner import shifted

S, A, B, H = 3, 2, 4, 3
SMALL: dict[str, Any] = {
    "hidden_sizes": [5],
    "dynamics_hidden_sizes": [8],
    "dynamics_weight_decay": [0.0, 0.0],
    "particles": 1,
    "sampling": "ts1",
}


class Linear(nn.Module):
    """A deterministic stand-in for the dynamics, whose episodes may end."""

    def __init__(self) -> None:
        super().__init__()
        self.g = torch.randn(A, S)

    def step(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        following = 0.9 * observation + action @ self.g
        return following, following.sum(-1), following[:, 0] < -0.5

    expected_step = step


class Still(Planner):
    """Finds what it starts from, or else the same plan each time: what is left can be followed."""

    def __call__(self, problem: Problem, state: Tensor, start: Start | None = None) -> Solution:
        mean = self.mean_of(problem, state, start)
        if start is None:
            mean = mean + torch.linspace(-0.9, 0.9, mean.numel()).view(mean.shape)
        score = problem.score(state, mean.unsqueeze(1)).squeeze(1)
        next_start = Start(shifted(mean), shifted(mean).unsqueeze(1))
        self.found = Solution(mean, score, mean, next_start)
        return self.found


def make(algorithm: Any, planner: Planner | None = None, **arguments: Any) -> Any:
    torch.manual_seed(0)
    agent = algorithm(S, A, "never", planner=planner or Still(H, 2), **{**SMALL, **arguments})
    agent.actor.theta.data.normal_()
    return agent


def with_trainer(agent: Any) -> Any:
    agent.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    agent.trainer.fit_loop.epoch_loop.batch_progress.total.ready = 1
    agent.configure_optimizers()
    return agent


def naive_policy(policy: PolicyNetwork, theta: Tensor, observation: Tensor) -> Tensor:
    """One row through one network, its layers cut out of the vector by hand."""
    x, at = (observation - policy.mean) / policy.std, 0
    for layer, (inputs, outputs) in enumerate(policy.shapes):
        weight = theta[at : at + inputs * outputs].view(inputs, outputs)
        bias = theta[at + inputs * outputs : at + (inputs + 1) * outputs]
        at += (inputs + 1) * outputs
        x = (x if layer == 0 else x.tanh()) @ weight + bias
    assert at == len(theta)
    return x.detach()


def test_many_policies_are_evaluated_as_one_after_the_other() -> None:
    torch.manual_seed(0)
    policy = PolicyNetwork(S, A, [7, 6])
    policy.set_scale(torch.randn(50, S) * 3 + 1)
    theta, observation = torch.randn(5, len(policy.theta)), torch.randn(5, B, S)
    found = policy(observation, theta)
    for n in range(5):
        for b in range(B):
            expected = naive_policy(policy, theta[n], observation[n, b])
            assert torch.allclose(found[n, b], expected, atol=1e-5)
    assert torch.allclose(policy(observation[0]), policy(observation[:1], policy.theta[None])[0])
    policy.theta.data *= 100
    assert policy.mode(observation).abs().max() == 1


def test_the_first_proposals_are_near_the_middle_and_constants_keep_their_scale() -> None:
    torch.manual_seed(0)
    policy = PolicyNetwork(S, A, [64, 64])
    observation = torch.randn(100, S)
    observation[:, 1] = 4.0
    policy.set_scale(observation)
    assert policy.mode(observation).abs().max() < 0.1
    assert policy.std[1] == 1 and policy.mean[1] == 4


def test_action_space_scores_noise_on_the_policys_own_plan() -> None:
    agent = make(POPLINA)
    agent.score.dynamics = agent.dynamics = model = Linear()
    state = torch.randn(B, S)
    solution = agent.plan(state)
    clipped = 0
    for b in range(B):
        noise = torch.linspace(-0.9, 0.9, B * H * A).view(B, H, A)[b]
        s, proposal = state[b], []
        for _ in range(H):
            proposal.append(naive_policy(agent.actor, agent.actor.theta, s).clamp(-1, 1))
            s = model.step(s[None], proposal[-1][None])[0][0]
        raw = torch.stack(proposal) + 2 * noise
        plan, s, total = raw.clamp(-1, 1), state[b : b + 1], 0.0
        clipped += int((raw != plan).sum())
        for t in range(H):
            s, reward, ended = model.step(s, plan[t : t + 1])
            total += float(reward)
            if ended:
                break
        assert torch.allclose(solution.action[b], plan, atol=1e-5)
        assert float(solution.score[b]) == pytest.approx(total, abs=1e-4)
        assert torch.equal(agent.planner.found.action[b], noise)
    assert clipped


@pytest.mark.parametrize("algorithm", [POPLINA, POPLINP])
def test_the_next_search_starts_from_the_noise_that_is_left(algorithm: Any) -> None:
    """And from none where an episode begins; the planner's own kept candidates go along."""
    agent = make(algorithm)
    behaviour, copies = agent.behaviour(2), torch.arange(2)
    behaviour(torch.randn(2, S), copies, torch.tensor([True, True]))
    noise, left = agent.planner.found.action, behaviour.memory.mean.clone()
    assert torch.equal(left[:, :-1], noise[:, 1:]) and not left[:, -1].any()
    assert torch.equal(behaviour.memory.kept[:, 0], left)
    behaviour(torch.randn(2, S), copies, torch.tensor([False, True]))
    assert torch.equal(behaviour.memory.mean[0, :-1], left[0, 1:])
    assert not behaviour.memory.mean[1].any() and not behaviour.memory.kept[1].any()


def paid(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    """A known reward that asks what was done."""
    return following.sum(-1) - action.square().sum(-1)


@pytest.mark.parametrize("known", [None, f"{__name__}.paid"])
def test_parameter_space_scores_sequences_of_policies(known: str | None) -> None:
    """Each by following it in the model, with a policy of its own at every step."""
    agent = make(POPLINP, noise_scale=0.5, particles=3, reward=known)
    agent.score.dynamics = model = Linear()
    state, size = torch.randn(B, S), len(agent.actor.theta)
    changes = torch.rand(B, 6, H, size) * 2 - 1
    found = agent.score(state, changes)
    lengths = set()
    for b in range(B):
        for n in range(6):
            s, total = state[b : b + 1], 0.0
            for t in range(H):
                theta = agent.actor.theta + 0.5 * changes[b, n, t]
                action = naive_policy(agent.actor, theta, s[0]).clamp(-1, 1)
                before = s
                s, reward, ended = model.step(s, action[None])
                total += float(reward if known is None else paid(before, action[None], s))
                if ended:
                    break
            lengths.add(t)
            assert float(found[b, n]) == pytest.approx(total, rel=1e-4, abs=1e-4)
    assert len(lengths) > 1


def test_parameter_space_acts_by_the_first_changed_policy() -> None:
    agent = make(POPLINP)
    state = torch.randn(B, S)
    solution = agent.plan(state)
    for b in range(B):
        theta = agent.actor.theta + agent.score.scale * agent.planner.found.action[b, 0]
        expected = naive_policy(agent.actor, theta, state[b]).clamp(-1, 1)
        assert torch.allclose(solution.action[b, 0], expected, atol=1e-5)


def test_averaging_equals_a_naive_loop() -> None:
    """theta moves by the mean of the first changes, once; evaluations between do not count."""
    agent = with_trainer(make(POPLINP, CEM(H, 20, 5, 2), noise_scale=0.5))
    begun = agent.actor.theta.clone()
    agent.distil()
    assert torch.equal(agent.actor.theta, begun)
    empty = TensorDict({}, batch_size=[0, 8])
    behaviour, here = agent.behaviour(1), torch.zeros(1, dtype=torch.long)
    total = torch.zeros_like(begun)
    for step in range(5):
        behaviour(torch.randn(1, S), here, torch.tensor([step == 0]))
        total += agent._newest_change
        agent.training_step(empty, 0)
        agent.plan(torch.randn(3, S))
    agent.distil()
    assert total.norm() > 0
    assert torch.allclose(agent.actor.theta, begun + total / 5, atol=1e-6)
    moved = agent.actor.theta.clone()
    agent.distil()
    assert torch.equal(agent.actor.theta, moved)


def test_a_fit_distils_and_standardises_by_all_that_was_seen() -> None:
    agent = with_trainer(make(POPLINP, CEM(H, 20, 5, 2), noise_scale=0.5))
    agent.behaviour(1)(torch.randn(1, S), torch.zeros(1, dtype=torch.long), torch.tensor([True]))
    agent.training_step(TensorDict({}, batch_size=[0, 8]), 0)
    assert agent._newest_change.any()
    begun, observation = agent.actor.theta.clone(), 3 * torch.randn(60, S) + 1
    agent.fit_dynamics(
        TensorDict(
            {
                "observation": observation,
                "action": torch.rand(60, A),
                "reward": torch.rand(60),
                "next": {"observation": observation, "terminated": torch.zeros(60).bool()},
            },
            batch_size=[60],
        )
    )
    assert torch.allclose(agent.actor.theta, begun + agent._newest_change)
    assert torch.allclose(agent.actor.mean, observation.mean(0))
    assert torch.allclose(agent.actor.std, observation.std(0, correction=0))


def test_the_noted_change_is_the_first_of_the_plan() -> None:
    agent = make(POPLINP, noise_scale=0.5)
    agent.plan(torch.randn(1, S))
    assert torch.equal(agent._newest_change, 0.5 * agent.planner.found.action[0, 0])


def test_cloning_comes_to_the_policy_that_acted() -> None:
    """Its loss is the mean square of a naive loop, and of a linear policy it leaves little."""
    agent = with_trainer(make(POPLINA, hidden_sizes=[32]))
    torch.manual_seed(1)
    linear = 0.2 * torch.randn(S, A)
    observation = torch.randn(1, 64, S)
    windows = TensorDict(
        {"observation": observation, "action": (observation @ linear).unsqueeze(2)},
        batch_size=[1, 64],
    )
    loss = agent.actor_loss(windows[0])
    naive = 0.0
    for i in range(64):
        proposal = naive_policy(agent.actor, agent.actor.theta, observation[0, i])
        naive += float((proposal - observation[0, i] @ linear).square().sum()) / (64 * A)
    assert float(loss) == pytest.approx(naive, rel=1e-4)
    for _ in range(300):
        agent.training_step(windows, 0)
    assert float(agent.actor_loss(windows[0])) < 0.01 * naive


def test_what_cannot_be_used_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigurationError, match=r"^model\.noise_scale: 0\.0 was given"):
        make(POPLINP, noise_scale=0.0)
    with pytest.raises(ConfigurationError, match=r"^model\.weight_decay: -1\.0 was given"):
        make(POPLINA, weight_decay=-1.0)
    with pytest.raises(ConfigurationError, match=r"^model\.hidden_sizes"):
        make(POPLINP, hidden_sizes=[])
