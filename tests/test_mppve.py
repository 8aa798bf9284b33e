"""MPPVE against the paper: plans, targets, gradients, and its special cases."""

import math

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from lit_mbrl.algorithms import MBPO, MPPVE, SAC
from lit_mbrl.algorithms.soft_actor_critic import SoftActorCritic
from lit_mbrl.objectives import Plan, soft_target
from lit_mbrl.tabular import MDP, backup

S, A, B = 3, 2, 8
SMALL = {
    "hidden_sizes": [16, 16],
    "dynamics_hidden_sizes": [8],
    "dynamics_weight_decay": [0.0, 0.0],
}


def falls_below_zero(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """Ends an episode where the first coordinate is negative."""
    return next_observation[..., 0] < 0


FALLS = f"{__name__}.falls_below_zero"


def make(plan_length: int = 3, termination: str = "never", **kwargs: object) -> MPPVE:
    torch.manual_seed(0)
    return MPPVE(S, A, termination, plan_length=plan_length, **{**SMALL, **kwargs})  # type: ignore[arg-type]


class Linear(nn.Module):
    """A deterministic stand-in for the dynamics: s' = s + W a, r = 0, with its termination."""

    def __init__(self, termination: object = None):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(S, A))
        self.termination = termination

    def step(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        following = observation + action @ self.weight.T
        ended = torch.zeros(len(observation), dtype=torch.bool)
        if self.termination is not None:
            ended = self.termination(observation, action, following)  # type: ignore[operator]
        return following, torch.zeros(len(observation)), ended


def windows(k: int, batch: int = B) -> TensorDict:
    return TensorDict(
        {
            "observation": torch.randn(batch, S),
            "action": torch.rand(batch, k, A) * 2 - 1,
            "reward": torch.randn(batch, k),
            "mask": torch.ones(batch, k, dtype=torch.bool),
            "next": {
                "observation": torch.randn(batch, S),
                "terminated": torch.rand(batch) < 0.3,
            },
        },
        batch_size=[batch],
    )


def critic_target(agent: SoftActorCritic, batch: TensorDict, plan: Plan) -> Tensor:
    """What `MPPVE.critic_loss` regresses on."""
    return soft_target(batch, plan, agent.target_critic, agent.temperature(), agent.gamma)


def test_plan_is_a_rollout_of_the_policy_in_the_model() -> None:
    """Eq. 1-4 by a naive loop with the same noise."""
    agent = make(plan_length=4)
    agent.dynamics = Linear()
    observation = torch.randn(B, S)
    torch.manual_seed(1)
    plan = agent.sample_plan(observation)
    torch.manual_seed(1)
    state, log_prob = observation, torch.zeros(B)
    for m in range(4):
        action, step_log_prob = agent.actor.sample(state)
        assert torch.allclose(plan.action[:, m], action, atol=1e-6)
        log_prob = log_prob + step_log_prob
        state = agent.dynamics.step(state, action)[0]
    assert torch.allclose(plan.log_prob, log_prob, atol=1e-5)


def test_plan_is_zero_after_a_predicted_termination() -> None:
    agent = make(plan_length=4)
    agent.dynamics = Linear(falls_below_zero)
    observation = torch.randn(200, S)
    torch.manual_seed(1)
    plan = agent.sample_plan(observation)
    torch.manual_seed(1)
    state, alive, log_prob = observation, torch.ones(200, dtype=torch.bool), torch.zeros(200)
    for m in range(4):
        action, step_log_prob = agent.actor.sample(state)
        assert torch.equal(plan.action[:, m] == 0, ~alive[:, None].expand(-1, A))
        log_prob = log_prob + torch.where(alive, step_log_prob, torch.zeros(()))
        state, _, ended = agent.dynamics.step(state, action)
        alive = alive & ~ended
    assert 0 < alive.sum() < 200
    assert torch.allclose(plan.log_prob, log_prob, atol=1e-5)
    agent.mask_plan = False
    assert agent.sample_plan(observation).action.ne(0).all()


def jacobian(agent: MPPVE, observation: Tensor) -> Tensor:
    """d plan / d (bias of the policy's mean), [k, A], summed over the batch."""
    bias = agent.actor.network[-1].bias
    rows = []
    for m in range(agent.plan_length):
        torch.manual_seed(1)
        action = agent.sample_plan(observation, agent.differentiated).action[:, m].sum(0)
        rows.append(
            torch.stack(
                [
                    torch.autograd.grad(a, bias, retain_graph=True)[0][i]
                    if a.requires_grad
                    else torch.zeros(())
                    for i, a in enumerate(action)
                ]
            )
        )
    return torch.stack(rows)


def test_gradient_is_cut_at_the_model_unless_asked_for() -> None:
    """Cut: each action's own derivative 1 - a^2 alone. Not cut: through W as well (Eq. 18)."""
    agent = make(plan_length=2)
    agent.dynamics = Linear()
    # A policy that is linear in the state, so that the derivative is known in closed form.
    agent.actor.network = nn.Sequential(nn.Linear(S, 2 * A))
    observation = torch.randn(B, S)
    torch.manual_seed(1)
    first, second = agent.sample_plan(observation).action.unbind(1)
    own = torch.stack([(1 - first**2).sum(0), (1 - second**2).sum(0)])
    assert torch.allclose(jacobian(agent, observation), own, atol=1e-5)
    agent.gradient_through_model = True
    # d a2 / d b = (1 - a2^2) (1 + d mean/d s W (1 - a1^2)), and the deviation moves as well.
    weight = agent.actor.network[0].weight
    torch.manual_seed(1)
    noise1 = torch.randn(B, A)
    noise2 = torch.randn(B, A)
    _, log_std = agent.actor(observation + first @ agent.dynamics.weight.T)
    del noise1
    slope = weight[:A] + (log_std.exp() * noise2).unsqueeze(-1) * weight[A:]  # [B, A, S]
    through = torch.einsum("bis,si,bi->bi", slope, agent.dynamics.weight, 1 - first**2)
    expected = torch.stack([own[0], ((1 - second**2) * (1 + through)).sum(0)])
    assert torch.allclose(jacobian(agent, observation), expected, atol=1e-4)


@pytest.mark.parametrize("rollout_length", [1, 2, 5])
def test_plan_actions_beyond_the_rollout_length_carry_no_gradient(rollout_length: int) -> None:
    agent = make(plan_length=5)
    agent.rollout_length = rollout_length
    observation = torch.randn(B, S)
    carries = jacobian(agent, observation).ne(0).all(-1)
    assert carries.tolist() == [m <= rollout_length for m in range(5)]
    agent.plan_gradient_cut = False
    assert jacobian(agent, observation).ne(0).all()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_critic_target_equals_a_naive_loop(k: int) -> None:
    """Eq. 51 with the minimum of the target critics, by a loop over rows."""
    agent = make(plan_length=k)
    batch = windows(k)
    plan = Plan(torch.rand(B, k, A), torch.randn(B))
    target = critic_target(agent, batch, plan)
    for i in range(B):
        expected = sum(agent.gamma**m * batch["reward"][i, m].item() for m in range(k))
        if not batch["next", "terminated"][i]:
            row = slice(i, i + 1)
            q = (
                agent.target_critic(batch["next", "observation"][row], plan.action[row])
                .min()
                .item()
            )
            alpha = agent.temperature().item()
            expected += agent.gamma**k * (q - alpha * plan.log_prob[i].item())
        assert target[i].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("k", "alpha"), [(1, 0.0), (2, 0.0), (3, 0.0), (1, 0.3), (2, 0.3), (3, 0.3)]
)
def test_neural_target_agrees_with_the_tabular_operator(k: int, alpha: float) -> None:
    """Averaged over plans, Eq. 16 and 51 are the operator of Eq. 7 and 31 on a tabular MDP."""
    torch.manual_seed(0)
    states, actions, gamma = 4, 2, 0.9
    following = torch.randint(states, (states, actions))
    transition = torch.zeros(states, actions, states, dtype=torch.float64)
    transition.scatter_(2, following.unsqueeze(-1), 1.0)
    reward = torch.randn(states, actions, dtype=torch.float64)
    policy = torch.rand(states, actions, dtype=torch.float64).softmax(-1)
    table = torch.randn(states, actions**k, dtype=torch.float64)

    def walk(state: int, plan: list[int]) -> tuple[list[float], list[float], int]:
        rewards, log_probs = [], []
        for action in plan:
            rewards.append(reward[state, action].item())
            log_probs.append(policy[state, action].log().item())
            state = int(following[state, action])
        return rewards, log_probs, state

    def digits(plan: int) -> list[int]:
        return [plan // actions ** (k - 1 - m) % actions for m in range(k)]

    class Table:
        """The target critic: looks the first state's number and the plan's digits up."""

        def __call__(self, observation: Tensor, plan: Tensor) -> Tensor:
            index = (plan[..., 0].long() * actions ** torch.arange(k - 1, -1, -1)).sum(-1)
            return table[observation[:, 0].long(), index].unsqueeze(0)

    agent = make(plan_length=k, target_entropy=None, initial_temperature=alpha, gamma=gamma)
    del agent.target_critic  # a module cannot be replaced by a table
    object.__setattr__(agent, "target_critic", Table())
    expected = backup(MDP(transition, reward, gamma), policy, k, table, alpha=alpha)
    for state in range(states):
        for plan in range(actions**k):
            rewards, _, end = walk(state, digits(plan))
            target = 0.0
            for next_plan in range(actions**k):
                _, log_probs, _ = walk(end, digits(next_plan))
                window = TensorDict(
                    {
                        "reward": torch.tensor([rewards], dtype=torch.float64),
                        "next": {
                            "observation": torch.tensor([[end]]),
                            "terminated": torch.tensor([False]),
                        },
                    },
                    batch_size=[1],
                )
                sampled = Plan(
                    torch.tensor(digits(next_plan)).view(1, k, 1), torch.tensor([sum(log_probs)])
                )
                weight = math.exp(sum(log_probs))
                target += weight * critic_target(agent, window, sampled).item()
            assert target == pytest.approx(expected[state, plan].item(), rel=1e-5, abs=1e-6)


def test_critic_loss_is_half_the_squared_error_to_the_target() -> None:
    """Eq. 48, of each critic; and only the critic gets a gradient."""
    agent, batch = make(), windows(3)
    plan = Plan(torch.rand(B, 3, A), torch.randn(B))
    target = critic_target(agent, batch, plan)
    loss, value = agent.critic_loss(batch, plan)
    q = agent.critic(batch["observation"], batch["action"])
    assert loss.item() == pytest.approx(sum(0.5 * (x - target).square().mean().item() for x in q))
    assert value.item() == pytest.approx(q.mean().item())
    loss.backward()
    touched = {name.split(".")[0] for name, p in agent.named_parameters() if p.grad is not None}
    assert touched == {"critic"}


def test_a_non_finite_prediction_spoils_neither_plan_nor_gradient() -> None:
    """A terminal state may be infinite; the plan is masked from there on."""
    agent = make(plan_length=3)

    def explode(observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ended = observation[:, 0] > 0
        following = torch.where(ended.unsqueeze(-1), torch.inf, observation)
        return following, torch.zeros(len(observation)), ended

    agent.dynamics.step = explode  # type: ignore[method-assign]
    loss, log_prob = agent.actor_loss(torch.randn(50, S), agent.differentiated)
    loss.backward()
    assert loss.isfinite() and log_prob.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in agent.parameters())


def test_plan_length_one_is_mbpo_bit_for_bit() -> None:
    """Same weights, same noise: the critic targets and losses are equal, not close."""
    mppve = make(plan_length=1)
    mbpo = MBPO(S, A, "never", **SMALL)  # type: ignore[arg-type]
    mbpo.load_state_dict(mppve.state_dict())
    batch = windows(1)
    torch.manual_seed(2)
    with torch.no_grad():
        plan = mppve.sample_plan(batch["next", "observation"])
    ours = critic_target(mppve, batch, plan)
    torch.manual_seed(2)
    with torch.no_grad():
        action = mbpo.sample_plan(batch["next", "observation"])
    theirs = soft_target(batch, action, mbpo.target_critic, mbpo.temperature(), mbpo.gamma)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("algorithm", [MPPVE, MBPO, SAC])
def test_targets_are_limited_to_what_can_be_had(algorithm: type[SoftActorCritic]) -> None:
    """To the return and all entropy there can be; a limit that nothing reaches changes no bit."""
    arguments = (S, A) if algorithm is SAC else (S, A, "never")
    free = algorithm(*arguments, initial_temperature=0.1)
    k = free.critic.plan_shape[0]
    batch = windows(k)
    with torch.no_grad():
        plan = free.sample_plan(batch["next", "observation"])
    target = critic_target(free, batch, plan)
    # A policy that is uniform for ever: log 2 a number of each plan, a plan every k steps.
    entropies = sum(0.1 * k * A * math.log(2) * free.gamma ** (k * n) for n in range(1, 5000))
    highest = float(target.sort().values[-3])
    limited, unreached = (
        algorithm(*arguments, initial_temperature=0.1, max_return=most)
        for most in (highest - entropies, 1e3)
    )
    for agent in limited, unreached:
        agent.load_state_dict(free.state_dict())
    loss = free.critic.loss(batch["observation"], batch["action"], target.clamp(max=highest))[0]
    assert torch.allclose(limited.critic_loss(batch, plan)[0], loss, rtol=1e-5)
    assert torch.equal(unreached.critic_loss(batch, plan)[0], free.critic_loss(batch, plan)[0])
    assert loss < free.critic_loss(batch, plan)[0]


def test_vanilla_form_has_no_entropy() -> None:
    """alpha = 0, one critic: the target is Eq. 16 and the actor's loss Eq. 17."""
    agent = make(target_entropy=None, initial_temperature=0.0, critics=1)
    batch, plan = windows(3), Plan(torch.rand(B, 3, A), torch.randn(B))
    following = batch["next"]
    q = agent.target_critic(following["observation"], plan.action)[0]
    weights = torch.tensor([1.0, agent.gamma, agent.gamma**2])
    live = 1 - following["terminated"].float()
    expected = (batch["reward"] * weights).sum(1) + agent.gamma**3 * live * q
    assert torch.allclose(critic_target(agent, batch, plan), expected, atol=1e-6)
    torch.manual_seed(3)
    loss, _ = agent.actor_loss(batch["observation"], agent.differentiated)
    torch.manual_seed(3)
    sampled = agent.sample_plan(batch["observation"])
    assert torch.allclose(loss, -agent.critic(batch["observation"], sampled.action)[0].mean())
    assert set(agent.named_optimizers()) == {"dynamics", "critic", "actor"}


def test_actor_loss_is_eq_53_with_the_smaller_critic() -> None:
    agent = make()
    observation = torch.randn(B, S)
    torch.manual_seed(3)
    loss, log_prob = agent.actor_loss(observation, agent.differentiated)
    torch.manual_seed(3)
    plan = agent.sample_plan(observation)
    q = agent.critic(observation, plan.action)
    rows = [-min(q[0, i], q[1, i]) + agent.temperature() * plan.log_prob[i] for i in range(B)]
    assert torch.allclose(loss, torch.stack(rows).mean(), atol=1e-6)
    assert torch.equal(log_prob, plan.log_prob)


def test_target_entropy_is_multiplied_by_the_plan_length() -> None:
    assert make(target_entropy=-1.0).target_entropy == -3.0
    assert make(target_entropy=-1.0, scale_target_entropy=False).target_entropy == -1.0


def test_entropy_is_driven_to_its_target() -> None:
    """With a flat critic the temperature and the actor settle at the target entropy per step."""
    agent = make(plan_length=2, target_entropy=0.3, learning_rate=3e-3)
    with torch.no_grad():
        agent.critic.ensemble.weights[-1].zero_()
        # A value that rewards the extremes of the first action: pulls away from the target.
        agent.critic.ensemble.biases[-1].zero_()
    optimizers = agent.named_optimizers()
    observation = torch.zeros(256, S)
    for _ in range(600):
        loss, log_prob = agent.actor_loss(observation, agent.differentiated)
        extra = 3.0 * agent.sample_plan(observation).action.square().sum((1, 2)).mean()
        for name, value in (
            ("actor", loss + extra),
            ("temperature", agent.temperature.loss(log_prob, agent.target_entropy)),
        ):
            optimizers[name].zero_grad()
            value.backward()
            optimizers[name].step()
    assert -log_prob.mean().item() / 2 == pytest.approx(0.3, abs=0.15)
