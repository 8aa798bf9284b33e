"""bf16-mixed: what is bfloat16, and what must not be."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from tensordict import TensorDict
from torch import Tensor, nn

from lit_mbrl.algorithms import LOOP, LOOPSARSA, MPPVE, PETS, POPLINA, POPLINP, SAC
from lit_mbrl.behaviour import Behaviour
from lit_mbrl.dynamics import Dynamics, fitting
from lit_mbrl.networks import Actor, Critic, PolicyNetwork
from lit_mbrl.objectives import soft_target
from lit_mbrl.planning import ARC, CEM, ImaginedReturn, lookahead
from lit_mbrl.planning.policy_search import PerturbedReturn
from lit_mbrl.precision import advice


def mixed_trainer() -> Trainer:
    return Trainer(
        precision="bf16-mixed", accelerator="cpu", logger=False, enable_checkpointing=False
    )


def autocast() -> torch.autocast:
    """The very context that Lightning trains under."""
    trainer = mixed_trainer()
    context: Any = trainer.precision_plugin.autocast_context_manager()  # type: ignore[attr-defined]
    assert context.fast_dtype is torch.bfloat16
    return context


def evaluate(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network of three hidden layers and a batch of its inputs."""
    torch.manual_seed(0)
    state, action = torch.randn(64, 11), torch.rand(64, 3) * 2 - 1
    if name == "critic":
        return Critic(11, 3, 1, [64, 64, 64], 2), (state, action.unsqueeze(1))
    if name == "actor":
        return Actor(11, 3, [64, 64, 64]), (state,)
    dynamics = Dynamics(11, 3, "never", [64, 64, 64], [0.0] * 4, 2, 2)
    return dynamics, (torch.cat([state, action], -1).expand(2, -1, -1),)


NETWORKS = ["actor", "critic", "dynamics"]


def outputs(network: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    found = network(*inputs)
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("name", NETWORKS)
def test_hidden_products_are_bfloat16_and_outputs_float32(name: str) -> None:
    network, inputs = evaluate(name)
    exact = outputs(network, inputs)
    with autocast():
        mixed = outputs(network, inputs)
    for low, full in zip(mixed, exact, strict=True):
        assert low.dtype is torch.float32
        error = (low - full).abs().max() / full.std()
        assert 1e-4 < error < 0.05, "bfloat16 has eight bits"
        # Outputs rounded to bfloat16 would be their own roundings.
        assert (low != low.bfloat16().float()).float().mean() > 0.9


def test_targets_log_probabilities_and_losses_are_float32() -> None:
    """And no roundings of bfloat16 numbers."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_sizes": [64] * 3, "dynamics_hidden_sizes": [64] * 3}
    agent = MPPVE(11, 3, "never", 2, dynamics_weight_decay=[0.0] * 4, **sizes)
    state, following = torch.randn(2, 64, 11)
    ends = {"observation": following, "terminated": torch.rand(64) < 0.2}
    given = {"observation": state, "action": torch.rand(64, 2, 3), "reward": torch.randn(64, 2)}
    windows = TensorDict({**given, "next": ends}, batch_size=[64])
    inputs, targets = torch.randn(7, 64, 14), torch.randn(7, 64, 12)
    with autocast():
        plan = agent.sample_plan(following)
        target = soft_target(windows, plan, agent.target_critic, agent.temperature(), agent.gamma)
        losses = [
            *agent.critic_loss(windows, plan),
            agent.actor_loss(state)[0],
            agent.temperature.loss(plan.log_prob, -6.0),
            fitting.loss(agent.dynamics, inputs, targets),
        ]
    for values in (plan.log_prob, target):
        assert (values != values.bfloat16().float()).float().mean() > 0.9
    assert {tensor.dtype for tensor in (*plan, target, *losses)} == {torch.float32}


@pytest.mark.parametrize("name", NETWORKS)
def test_inputs_are_read_in_float32(name: str) -> None:
    """Two states that bfloat16 cannot tell apart are told apart."""
    network, inputs = evaluate(name)
    nudged = (inputs[0] * (1 + 2**-12), *inputs[1:])
    first = next(p for p in network.parameters() if p.dim() >= 2)
    with torch.no_grad():
        first.mul_(50)  # so that the nudge survives the hidden layers' own rounding
    with autocast():
        moved = [
            (a - b).abs().max()
            for a, b in zip(outputs(network, inputs), outputs(network, nudged), strict=True)
        ]
    assert max(moved) > 0


def test_a_gradient_step_sees_the_weights_that_the_last_one_left() -> None:
    """Autocast can keep cast copies of weights, which the next update must not see."""
    critic, inputs = evaluate("critic")
    with autocast():
        with torch.no_grad():
            before = critic(*inputs)
        for parameter in critic.parameters():
            parameter.data.mul_(1.1)
        after = critic(*inputs)
        assert (after - before).abs().max() > 0.01
        gradients = torch.autograd.grad(after.sum(), list(critic.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_backward_inside_training_step_has_the_gradients_of_backward_outside() -> None:
    """`training_step` runs under autocast as a whole; its backward passes must not."""
    torch.manual_seed(0)
    agent = SAC(11, 3, hidden_sizes=[64, 64])
    inputs = torch.randn(64, 11), torch.rand(64, 1, 3)
    agent.configure_optimizers()
    parameters = list(agent.critic.parameters())

    def loss(*inputs: Tensor) -> Tensor:
        return agent.critic(*inputs).square().mean()

    with autocast():
        value = loss(*inputs)
    outside = torch.autograd.grad(value, parameters)
    with autocast():
        agent.step("critic", loss, *inputs)
    for gradient, parameter in zip(outside, parameters, strict=True):
        assert torch.equal(gradient, parameter.grad)


def test_a_machine_without_bfloat16_units_is_told_of() -> None:
    assert advice(0.5) is None and advice(1.1) is None
    line = advice(146.4)
    assert line is not None and "trainer.precision" in line
    assert "146 times" in line and "32-true" in line


@pytest.mark.parametrize("sampling", ["ts1", "ts_infinity", "mean", "elite"])
def test_scores_of_plans_have_bfloat16_products_in_the_middle_alone(sampling: Any) -> None:
    """And states and rewards in float32: they add up over the steps of a plan."""
    torch.manual_seed(0)
    dynamics = Dynamics(11, 3, "never", [64, 64, 64], [0.0] * 4, 2, 2)
    particles = 1 if sampling == "mean" else 4
    state, plans = torch.randn(2, 11), torch.rand(2, 50, 3, 3) * 2 - 1
    found = []
    for context in (nullcontext, autocast):
        torch.manual_seed(1)
        found.append(
            ImaginedReturn(dynamics, sampling, particles, autocast=context).returns(state, plans)
        )
    exact, mixed = found
    assert mixed.dtype is torch.float32
    error = (mixed - exact).abs().max() / exact.std()
    assert 1e-5 < error < 0.05, "bfloat16 has eight bits"
    assert (mixed != mixed.bfloat16().float()).float().mean() > 0.9


@pytest.mark.parametrize("sampling", ["ts1", "ts_infinity", "mean", "elite"])
def test_scores_of_networks_without_a_product_in_the_middle_are_those_of_float32(
    sampling: Any,
) -> None:
    """Of states far from zero, which bfloat16 would standardise to others."""
    torch.manual_seed(0)
    dynamics = Dynamics(11, 3, "never", [64], [0.0] * 2, 2, 2)
    dynamics.set_input_scale(torch.cat([50 + torch.randn(99, 11), torch.rand(99, 3)], -1))
    particles = 1 if sampling == "mean" else 4
    state, plans = 50 + torch.randn(2, 11), torch.rand(2, 50, 3, 3) * 2 - 1
    found = []
    for context in (nullcontext, autocast):
        torch.manual_seed(1)
        score = ImaginedReturn(dynamics, sampling, particles, autocast=context)
        found.append(score.returns(state, plans))
    assert torch.equal(*found)


def test_policies_that_are_searched_for_act_in_float32() -> None:
    """As a policy does that is not: only the model is in bfloat16."""
    torch.manual_seed(0)
    dynamics = Dynamics(4, 2, "never", [8], [0.0] * 2, 2, 2)
    policy = PolicyNetwork(4, 2, [64, 64])
    with torch.no_grad():
        policy.theta.mul_(3)
    score = PerturbedReturn(policy, 0.1, dynamics, "ts1", 2, autocast=autocast)
    observation, change = torch.randn(6, 4), torch.rand(3, len(policy.theta)) * 2 - 1
    with autocast():
        found = score._act(observation, change)
    assert torch.equal(found, score._act(observation, change))


def test_a_planner_on_top_plans_in_the_precision_of_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = MPPVE(4, 1, "never", 2, dynamics_hidden_sizes=[8], dynamics_weight_decay=[0.0] * 2)
    agent.trainer = mixed_trainer()
    assert planning_precisions(monkeypatch, lookahead(agent, ARC(3, 8, iterations=1), 1)) == {True}


def planning_precisions(monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour) -> set[bool]:
    """Whether each step of the model was autocast, while a behaviour acted once."""
    seen, advance = set(), ImaginedReturn._advance

    def watched(self: ImaginedReturn, *arguments: Any) -> Any:
        seen.add(torch.is_autocast_enabled("cpu"))
        return advance(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ImaginedReturn, "_advance", watched)
        behaviour(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long), torch.tensor([True]))
    return seen


@pytest.mark.parametrize("algorithm", [LOOP, LOOPSARSA, PETS, POPLINA, POPLINP])
def test_an_algorithm_plans_in_the_precision_that_it_is_trained_in(
    algorithm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it acts, to collect or to be evaluated; without a trainer in float32."""
    sizes: dict[str, Any] = {"dynamics_hidden_sizes": [8], "dynamics_weight_decay": [0.0] * 2}
    planner = CEM(horizon=2, candidates=8, elites=4, iterations=1)
    agent = algorithm(4, 1, "never", planner, sampling="ts1", particles=2, **sizes)
    for trainer, expected in ((None, False), (mixed_trainer(), True)):
        agent.trainer = trainer
        for collects in (False, True):
            behaviour = agent.behaviour(1, deterministic=not collects, collects=collects)
            assert planning_precisions(monkeypatch, behaviour) == {expected}
