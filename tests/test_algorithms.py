"""Every algorithm and every configuration, found by themselves."""

import inspect
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml

import lit_mbrl.algorithms
from lit_mbrl.algorithms import Agent
from lit_mbrl.envs import TASKS
from lit_mbrl.fit import build

CONF = Path(__file__).parents[1] / "conf"
ALGORITHMS = [
    found
    for _, found in inspect.getmembers(lit_mbrl.algorithms, inspect.isclass)
    if issubclass(found, Agent) and found is not Agent
]
# Paper 000, Table 1: thousands of steps, k, rollout schedule x -> y over a -> b, target entropy.
TABLE_1 = {
    "": (10, 3, (1, 5, 0, 1_000), -0.05),
    "hopper": (100, 3, (1, 4, 20_000, 50_000), -1),
    "swimmer": (200, 3, (1, 1, 0, 0), -1),
    "halfcheetah": (200, 2, (1, 4, 20_000, 80_000), -3),
    "walker2d": (200, 2, (1, 1, 0, 0), -3),
    "ant": (300, 2, (1, 20, 20_000, 150_000), -4),
}
# Paper 002, Table 2: thousands of steps, V's rate, the model's rate, alpha, the model's layers, m.
# Its merged cells are read as the authors' code has HalfCheetah; InvertedPendulum is cut at 16.
TABLE_2 = {
    "": (16, 3e-4, 3e-4, 0.1, [32, 16], 1),
    "pendulum": (50, 3e-4, 3e-4, 0.2, [32, 16], 5),
    "halfcheetah": (200, 1e-3, 3e-4, 0.4, [256, 128], 5),
    "hopper": (200, 1e-3, 1e-4, 0.4, [256, 128], 5),
    "walker2d": (300, 3e-4, 1e-4, 0.4, [256, 256], 3),
}
COMPLETE = sorted(CONF.glob("*.yaml"))
OVERLAYS = sorted(CONF.glob("*/*.yaml"))


pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.__name__)
def test_each_algorithm_has_a_page_and_configurations(algorithm: type[Agent]) -> None:
    """A file that opens with its source, and a complete YAML."""
    name = algorithm.__name__.lower()
    module = inspect.getmodule(algorithm)
    assert module is not None and module.__name__ == f"lit_mbrl.algorithms.{name}"
    assert module.__doc__ and ("paper 0" in module.__doc__ or "arXiv" in module.__doc__)
    assert CONF / f"{name}.yaml" in COMPLETE


@pytest.mark.parametrize("name", ["sac", "mbpo", "mppve"])
def test_the_first_three_are_configured_for_each_known_task(name: str) -> None:
    tasks = {yaml.safe_load(path.read_text())["data"]["env_id"] for path in CONF.glob(f"{name}/*")}
    assert tasks == {task for task in TASKS if "-v5" in task} - {"InvertedPendulum-v5"}


@pytest.mark.parametrize("path", COMPLETE, ids=lambda p: p.stem)
def test_a_complete_configuration_names_every_value_of_its_algorithm(path: Path) -> None:
    """So that the file alone says what is run."""
    cli = build(["--config", str(path)])
    written = yaml.safe_load(path.read_text())["model"]["init_args"]
    linked = {"observation_size", "action_size", "termination"}
    arguments = set(inspect.signature(type(cli.model).__init__).parameters) - {"self"} - linked
    assert set(written) == arguments
    assert cli.datamodule.env_id == "InvertedPendulum-v5"
    assert cli.model.hparams["observation_size"] == 4


def assert_holds(found: Any, named: dict[str, Any]) -> None:
    """What is named has these values, at any depth; there may be more."""
    for key, value in named.items():
        if isinstance(value, dict):
            assert_holds(found[key], value)
        else:
            assert found[key] == value


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_task_is_a_second_configuration(path: Path) -> None:
    cli = build(["--config", str(CONF / f"{path.parent.name}.yaml"), "--config", str(path)])
    overlay = yaml.safe_load(path.read_text())
    assert cli.datamodule.env_id == overlay["data"]["env_id"]
    assert cli.trainer.max_epochs == overlay["trainer"]["max_epochs"]
    assert_holds(cli.model.hparams, overlay["model"]["init_args"])
    assert cli.model.hparams["observation_size"] == cli.datamodule.observation_size
    assert cli.model.hparams["action_size"] == cli.datamodule.action_size


@pytest.mark.parametrize("task", TABLE_1)
def test_mppve_is_configured_as_in_its_paper(task: str) -> None:
    overlay = ["--config", str(CONF / "mppve" / f"{task}.yaml")] if task else []
    cli = build(["--config", str(CONF / "mppve.yaml"), *overlay])
    thousands, plan_length, schedule, target_entropy = TABLE_1[task]
    assert cli.datamodule.steps_per_epoch == 1000
    assert cli.trainer.max_epochs == thousands
    assert cli.model.plan_length == plan_length
    assert cli.config_init["rollout_length"].settings() == schedule
    actions = gymnasium.make(cli.datamodule.env_id).action_space
    scaled = target_entropy - np.log((actions.high - actions.low) / 2).sum()  # to [-1, 1]
    assert cli.model.hparams["target_entropy"] == pytest.approx(scaled, abs=5e-4)
    assert cli.datamodule.updates_per_step == 20


def test_humanoids_entropy_is_of_actions_scaled_too() -> None:
    """The published -8 is of 17 numbers in [-0.4, 0.4]."""
    files = [str(CONF / name) for name in ("mppve.yaml", "mppve/humanoid.yaml")]
    cli = build(["--config", files[0], "--config", files[1]])
    expected = -8 - 17 * math.log(0.4)
    assert cli.model.hparams["target_entropy"] == pytest.approx(expected, abs=5e-3)


def test_the_vanilla_form_takes_a_task_too() -> None:
    vanilla, task = (str(CONF / name) for name in ("mppve_vanilla.yaml", "mppve/hopper.yaml"))
    cli = build(["--config", vanilla, "--config", task, "--model.target_entropy", "null"])
    assert cli.datamodule.env_id == "Hopper-v5"
    assert cli.model.target_entropy is None and cli.model.temperature() == 0


@pytest.mark.parametrize("task", TABLE_2)
def test_s2vg_is_configured_as_in_its_paper(task: str) -> None:
    overlay = ["--config", str(CONF / "s2vg" / f"{task}.yaml")] if task else []
    cli = build(["--config", str(CONF / "s2vg.yaml"), *overlay])
    given = cli.model.hparams
    names = ("value_learning_rate", "model_learning_rate", "alpha", "model_hidden_sizes")
    found = (cli.trainer.max_epochs, *(given[name] for name in names))
    assert (*found, cli.datamodule.updates_per_step) == TABLE_2[task]
    assert given["learning_rate"] == 3e-4 and given["hidden_sizes"] == [256, 256]
    assert cli.datamodule.steps_per_epoch == 1000
