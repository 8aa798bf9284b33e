"""For every algorithm: its targets track their sources, and each optimizer has its rate."""

from pathlib import Path

import pytest
import torch
import yaml
from small_agents import B, move, train, transitions
from torch import nn

from lit_mbrl.algorithms import Agent
from lit_mbrl.fit import build

CONF = Path(__file__).parents[1] / "conf"
ARGUMENTS = {
    path.stem: yaml.safe_load(path.read_text())["model"]["init_args"]
    for path in sorted(CONF.glob("*.yaml"))
}
RATE = 0.37  # of the targets, and nobody's default
ONE_RATE = [
    name
    for name, given in ARGUMENTS.items()
    if [key for key in given if key.endswith("learning_rate")] == ["learning_rate"]
]


pytestmark = pytest.mark.usefixtures("elsewhere")


def make(name: str, **changed: object) -> Agent:
    options = [word for key, value in changed.items() for word in (f"--model.{key}", str(value))]
    torch.manual_seed(0)
    agent: Agent = build(["--config", str(CONF / f"{name}.yaml"), *options]).model
    return agent


@pytest.mark.parametrize("name", [name for name in ARGUMENTS if "target_rate" in ARGUMENTS[name]])
def test_targets_move_by_their_rate_towards_their_sources(name: str) -> None:
    """Once an update: target <- rate source + (1 - rate) target, with the source as it is then."""
    agent = make(name, target_rate=RATE, hidden_sizes=[16, 16])
    pairs: dict[str, tuple[nn.Module, nn.Module]] = {
        part: (module, getattr(agent, part.removeprefix("target_")))
        for part, module in agent.named_children()
        if part.startswith("target_")
    }
    assert pairs
    move(*(target for target, _ in pairs.values()))
    before = {part: [p.clone() for p in target.parameters()] for part, (target, _) in pairs.items()}
    k = agent.plan_length
    batch = transitions(k, observation_size=4, action_size=1)
    # What some algorithms want to know besides.
    batch["path"] = torch.randn(B, k + 1, 4)
    batch["log_prob"] = torch.zeros(B, k)
    agent.expect_batches(B, 0)
    train(agent, batch.unsqueeze(0))
    for part, (target, source) in pairs.items():
        for old, new, towards in zip(
            before[part], target.parameters(), source.parameters(), strict=True
        ):
            torch.testing.assert_close(new, old.lerp(towards, RATE))


@pytest.mark.parametrize("name", ONE_RATE)
def test_one_learning_rate_is_everyones_but_the_models(name: str) -> None:
    agent = make(name, learning_rate=0.0123)
    rates = {key: found.param_groups[0]["lr"] for key, found in agent.named_optimizers().items()}
    assert rates.pop("dynamics", None) != 0.0123
    assert rates and set(rates.values()) == {0.0123}


def test_the_rates_of_s2vg_are_table_2s() -> None:
    rates = {"learning_rate": 0.01, "value_learning_rate": 0.02, "model_learning_rate": 0.03}
    optimizers = make("s2vg", **rates).named_optimizers()
    assert {name: found.param_groups[0]["lr"] for name, found in optimizers.items()} == {
        "actor": 0.01,
        "critic": 0.02,
        "value": 0.02,
        "transition": 0.03,
        "reward": 0.03,
    }


def test_the_critic_of_ddpg_has_a_rate_and_a_weight_decay_of_its_own() -> None:
    changed = {"learning_rate": 0.01, "critic_learning_rate": 0.02, "critic_weight_decay": 0.3}
    groups = {
        name: found.param_groups[0]
        for name, found in make("ddpg", **changed).named_optimizers().items()
    }
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "actor": (0.01, 0),
        "critic": (0.02, 0.3),
    }
