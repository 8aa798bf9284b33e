"""Configurations spoiled one value at a time: each is refused in one line that names the option."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytorch_lightning import Trainer
from tiny import CONF

from lit_mbrl.fit import main

WRONG: dict[type, list[Any]] = {
    int: ["many", [1, 2], -7, 2.5, {"a": 1}],
    float: ["much", [0.5], {"a": 1}],
    bool: ["maybe", [True], 3],
    str: [[1], {"a": 1}],
    list: ["none", 7, [-1, 2], ["a"]],
    type(None): ["much", [1.0], {"a": 1}],  # a number that may be left out
}
CONFIG = yaml.safe_load((CONF / "mppve.yaml").read_text())


def leaves(config: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Options and values."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def changed(option: str, value: Any) -> str:
    """MPPVE's configuration with another value for one option."""
    config = copy.deepcopy(CONFIG)
    *groups, key = option.split(".")
    section = config
    for group in groups:
        section = section[group]
    section[key] = value
    return yaml.safe_dump(config)


# What is wrong, the text of the file, and what the line must name.
SPOILED = [
    (
        f"{option}: {wrong!r}",
        changed(option, wrong),
        option.removesuffix(".class_path").rpartition(".")[2],
    )
    for option, value in leaves(CONFIG)
    for wrong in WRONG[type(value)]
]
RANGES = {
    "model.init_args.gamma": [-0.1, 1.1],
    "model.init_args.target_rate": [0.0, 1.5],
    "model.init_args.learning_rate": [0.0, -1e-3, float("inf"), float("nan")],
    "model.init_args.target_entropy": [float("nan")],
    "model.init_args.actor_max_norm": [0.0],
    "model.init_args.plan_length": [0],
    "model.init_args.critics": [0],
    "model.init_args.hidden_sizes": [[], [0]],
    "model.init_args.dynamics_networks": [0, 4],
    "model.init_args.dynamics_elites": [0, 8],
    "model.init_args.dynamics_weight_decay": [[0.1], [-1.0, 0.0, 0.0, 0.0, 0.0]],
    "model.init_args.initial_temperature": [-1.0],
    "data.real_ratio": [-0.1, 1.1, 0.0],
    "data.replay_capacity": [4999],
    "data.warmup_steps": [255],
    "rollout_length.start": [0],
    "rollout_length.end_step": [-1],
    "retraining.retain_steps": [249],
    "retraining.fit_rows": [1],
    "trainer.log_every_n_steps": [0],
    "trainer.gradient_clip_val": [1.0],
    "trainer.accumulate_grad_batches": [4],
    "trainer.devices": [2],
    "trainer.precision": ["16-true"],
    "seed_everything": [2**32],
    "checkpoint.restores": [-1],
}
SPOILED += [
    (f"{option}: {wrong!r}", changed(option, wrong), option.split(".")[-1].split("_")[0])
    for option, values in RANGES.items()
    for wrong in values
]
NULLABLE = {"target_entropy", "max_return", "after"}
SPOILED += [
    (f"{option}: null", changed(option, None), option.rpartition(".")[2])
    for option, _ in leaves(CONFIG)
    if option.startswith(("model.init_args", "data", "rollout_length", "retraining", "evaluation"))
    and option.rpartition(".")[2] not in NULLABLE
]
SPOILED += [
    ("no algorithm", changed("model", {}), "model.class_path: missing"),
    ("an option of no algorithm", changed("model", {"gamma": 0.9}), "model.class_path: missing"),
    ("a group twice", changed("seed_everything", 1) + "data: {}", "data was given twice"),
    ("an option twice", "data: {seed: 1, seed: 2}", "seed was given twice"),
    ("an algorithm that is not there", changed("model.class_path", "lit_mbrl.Nothing"), "model"),
    ("a class that is none", changed("model.class_path", "torch.nn.Linear"), "model"),
    ("a logger that is none", changed("trainer.logger.class_path", "torch.nn.Linear"), "logger"),
    ("a trainer that is a number", changed("trainer", 7), "trainer"),
    ("data that are a word", changed("data", "Hopper-v5"), "data"),
    ("no task", changed("data.env_id", None), "env_id"),
    ("a group that is not there", changed("planner", {"horizon": 3}), "planner"),
    ("no YAML", "a: [1\nb: }", "config"),
    ("a list", "- 1\n- 2", "config"),
    ("nothing", "", "config"),
    ("no text", "\x00\x01", "config"),
    ("a tag that would run a command", 'a: !!python/object/apply:os.system ["exit"]', "config"),
]


@pytest.mark.parametrize(
    ("text", "named"), [case[1:] for case in SPOILED], ids=[c[0] for c in SPOILED]
)
def test_it_is_refused_in_one_line(
    text: str,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def accepted(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("training would have started")

    monkeypatch.setattr(Trainer, "fit", accepted)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "spoiled.yaml"
    path.write_text(text)
    assert main(["--config", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1, captured.err
    assert captured.err.startswith("error: ")
    assert named in captured.err
    assert list(tmp_path.iterdir()) == [path], "a refused run leaves nothing"
