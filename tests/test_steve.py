"""STEVE: its candidates, their weights, its policy and what its updates move."""

import pytest
import torch
from linear_quadratic import GAMMA
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
from torch import Tensor, nn

from lit_mbrl.algorithms import DDPG, STEVE
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.objectives import inverse_variance_mean


def test_a_target_is_weighted_by_inverse_variances() -> None:
    """Two combinations: means (1, 3), variances (1, 4), so weights (0.8, 0.2)."""
    candidates = torch.tensor([[[0.0, 1.0]], [[2.0, 5.0]]])
    target, weight = inverse_variance_mean(candidates)
    assert torch.allclose(weight, torch.tensor([[0.8, 0.2]]))
    assert target.item() == pytest.approx(0.8 * 1 + 0.2 * 3)
    target, weight = inverse_variance_mean(torch.full((4, 1, 3), 7.0))
    assert torch.allclose(weight, torch.full((1, 3), 1 / 3)) and target.item() == pytest.approx(7)


class Members(nn.Module):
    """A stand-in for the dynamics whose m-th network is s' = s + c_m, r = c_m, without noise."""

    def __init__(self) -> None:
        super().__init__()
        self.elites = torch.tensor([2, 0])
        self.shift = torch.tensor([0.1, 9.0, -0.4])

    def step_with(
        self, members: Tensor, observation: Tensor, action: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        shift = self.shift[members].unsqueeze(1)
        following = observation + shift.unsqueeze(-1)
        return following, shift.expand(observation.shape[:2]), following[..., 0] < 0


def steve(horizon: int = 2) -> STEVE:
    torch.manual_seed(0)
    agent = STEVE(S, A, FALLS, horizon=horizon, critics=3, gamma=GAMMA, **MODEL)  # type: ignore[arg-type]
    agent.dynamics = Members()  # type: ignore[assignment]
    return agent


def test_steves_candidates_are_those_of_each_network_and_critic() -> None:
    agent, batch = steve(), transitions(batch=40)
    found = agent.candidates(batch)
    assert found.shape == (3 * 2, 40, 3)
    for i in range(40):
        for m, member in enumerate(agent.dynamics.elites):
            shift = agent.dynamics.shift[member]
            state = batch["next", "observation"][i : i + 1]
            total, ended = batch["reward"][i, 0], bool(batch["next", "terminated"][i])
            for h in range(3):
                action = agent.target_actor(state).unsqueeze(1)
                value = agent.target_critic(state, action)[:, 0]
                expected = total + (0 if ended else GAMMA ** (h + 1) * value)
                mine = found[[m, m + 2, m + 4], i, h]
                assert torch.allclose(mine, expected.expand(3), atol=1e-5)
                if not ended:
                    total = total + GAMMA ** (h + 1) * shift
                    state = state + shift
                    ended = bool(state[0, 0] < 0)


def test_steve_without_imagined_steps_bootstraps_from_the_mean_critic() -> None:
    """H = 0: DDPG's target with the mean of the critics."""
    agent, batch = steve(horizon=0), transitions()
    target, weight = inverse_variance_mean(agent.candidates(batch))
    state, ended = batch["next", "observation"], batch["next", "terminated"]
    value = agent.target_critic(state, agent.target_actor(state).unsqueeze(1)).mean(0)
    expected = batch["reward"][:, 0] + GAMMA * torch.where(ended, 0.0, value)
    assert torch.allclose(target, expected, atol=1e-5) and weight.eq(1).all()


def test_steve_trusts_networks_that_agree() -> None:
    """Networks far apart put the weight on T_0; networks that are one share it out."""
    agent, batch = steve(), transitions(batch=200)
    batch["next", "terminated"] = torch.zeros(200, dtype=torch.bool)
    batch["next", "observation"][:, 0] += 20  # nothing ends
    agent.dynamics.shift = torch.tensor([-3.0, 0.0, 3.0])
    apart = inverse_variance_mean(agent.candidates(batch))[1].mean(0)
    agent.dynamics.shift = torch.zeros(3)
    together = inverse_variance_mean(agent.candidates(batch))[1].mean(0)
    assert apart[0] > 0.9
    # The variance is the critics' alone, and falls with gamma^2 a step.
    assert together[2] > together[1] > together[0]


def naive_target(agent: STEVE, row: TensorDict) -> tuple[float, set[str]]:
    """The target of one transition by loops over networks, steps and critics; how its paths end."""
    ends, candidates = set(), [[] for _ in range(agent.horizon + 1)]  # type: ignore[var-annotated]
    for member in agent.dynamics.elites.tolist():
        state, total = row["next", "observation"], row["reward"].item()
        end = "real" if row["next", "terminated"] else ""
        for h in range(agent.horizon + 1):
            discount, action = GAMMA ** (h + 1), agent.target_actor(state)
            for c in range(3):
                value = q(agent.target_critic, c, state, action).item()
                candidates[h].append(total if end else total + discount * value)
            if h < agent.horizon and not end:
                inputs = torch.cat([state, action]).view(1, 1, -1)
                change = agent.dynamics(inputs, torch.tensor([member]))[0][0, 0]
                total += discount * change[S].item()
                state = state + change[:S]
                end = "imagined" if state[0] < 0 else ""
        ends.add(end)
    weights, means = [], []
    for found in candidates:
        means.append(sum(found) / len(found))
        variance = sum((x - means[-1]) ** 2 for x in found) / len(found)
        weights.append(1 / (variance + 1e-8))
    weighted = sum(w * mean for w, mean in zip(weights, means, strict=True))
    return weighted / sum(weights), ends


@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_steves_critics_gradient_is_that_of_a_naive_loop(horizon: int) -> None:
    """As a training step takes it: targets are numbers, and all critics learn each of them."""
    torch.manual_seed(0)
    agent = STEVE(S, A, FALLS, horizon=horizon, critics=3, gamma=GAMMA, **MODEL)  # type: ignore[arg-type]
    agent.dynamics.elites.copy_(torch.tensor([2, 0]))
    for bound in (agent.dynamics.min_log_var, agent.dynamics.max_log_var):
        bound.data.fill_(-40.0)  # no noise, which the loop would have to draw in the same order
    move(agent.target_actor, agent.target_critic)
    batch, loss, met = transitions(batch=40), torch.zeros(()), set()
    for row in batch:
        target, ends = naive_target(agent, row)
        for c in range(3):
            error = q(agent.critic, c, row["observation"], row["action"][0]) - target
            loss = loss + 0.5 * error**2 / 40
        met |= ends
    assert met == {"", "real", "imagined"} - ({"imagined"} if horizon == 0 else set())
    assert_critic_follows(agent, batch, loss)


def test_steves_policy_climbs_the_mean_of_the_critics() -> None:
    """The gradient of a naive loop over critics and states, and of the actor alone."""
    agent, state = steve(), torch.randn(B, S)
    parameters = list(agent.actor.parameters())
    found = torch.autograd.grad(agent.actor_loss(state), parameters)
    total = torch.zeros(())
    for row in state.split(1):
        q = agent.critic(row, agent.actor(row).unsqueeze(1))
        assert len(q) == 3
        total = total - sum(q[i, 0] for i in range(3)) / 3
    expected = torch.autograd.grad(total / B, parameters)
    assert any(part.norm() > 1e-4 for part in expected)
    for part, other in zip(found, expected, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-4, atol=1e-7)


def test_steves_updates_move_what_they_should() -> None:
    torch.manual_seed(0)
    agent = STEVE(S, A, FALLS, horizon=1, **MODEL)  # type: ignore[arg-type]
    before = {name: weight.clone() for name, weight in agent.state_dict().items()}
    after = train(agent, transitions().unsqueeze(0))
    for part in ("actor", "critic", "target_actor", "target_critic"):
        assert not equal(after, before, part)
    assert equal(after, before, "dynamics")
    ddpg = DDPG(S, A, **SMALL)  # type: ignore[arg-type]
    ddpg.actor.load_state_dict(agent.actor.state_dict())
    state = torch.randn(5, S)
    assert torch.equal(agent.act(state, True), ddpg.act(state, True))


@pytest.mark.parametrize(
    ("name", "value"), [("horizon", -1), ("critics", 1), ("exploration_std", -0.5)]
)
def test_bad_arguments_are_one_line(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"^model.{name}: {value} was given; allowed: .+$"):
        STEVE(S, A, "never", **{**MODEL, name: value})  # type: ignore[arg-type]
