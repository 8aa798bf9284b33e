"""PETS through the command line: what it learns, logs and can be used for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONF, TINY, TINY_MODEL, TINY_PLANNER, Run, execute, options

import lit_mbrl.diagnose
import lit_mbrl.evaluate
import lit_mbrl.export
from lit_mbrl.algorithms import PETS
from lit_mbrl.fit import build
from lit_mbrl.planning import ICEM
from lit_mbrl.trained import load

TINY_PETS = {
    **{name: value for name, value in TINY.items() if name != "model.hidden_sizes"},
    **TINY_MODEL,
    **TINY_PLANNER,
    "registration.enabled": True,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return execute("PETS", tmp_path_factory.mktemp("run"), CONF / "pets.yaml", TINY_PETS)


def test_a_run_fits_and_plans(run: Run) -> None:
    """Three fits, and a score of each plan that was logged; no policy is registered."""
    assert run.status == 0
    assert set(run.metrics["dynamics/holdout_mse"]) == {0, 20, 40}
    assert set(run.metrics["plan/score"]) == {20, 40}
    assert set(run.metrics["eval/return_mean"]) == {20, 40}
    assert not any(name.startswith(("critic", "actor")) for name in run.metrics)
    assert not any("models:/" in line for line in run.lines)


def test_a_checkpoint_brings_its_planner_back(run: Run) -> None:
    agent: Any = load(run.checkpoints / "last.ckpt").agent
    assert isinstance(agent, PETS) and isinstance(agent.planner, ICEM)
    assert (agent.planner.horizon, agent.planner.elites) == (4, 4)
    weights = torch.load(run.checkpoints / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(weights[name], value) for name, value in agent.state_dict().items())


def test_a_checkpoint_of_a_class_that_is_no_planner_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the class is not called."""
    saved = torch.load(run.checkpoints / "best.ckpt", weights_only=True)
    saved["hyper_parameters"]["planner"]["class_path"] = "pathlib.Path"
    torch.save(saved, tmp_path / "spoiled.ckpt")
    assert lit_mbrl.evaluate.main([str(tmp_path / "spoiled.ckpt")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "of pathlib.Path; allowed: a checkpoint of" in line


def test_evaluating_a_checkpoint_finds_what_was_logged(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the last bit: a planner's candidates have the evaluation's own seeds."""
    capsys.readouterr()
    arguments = [str(run.checkpoints / "last.ckpt"), "--episodes", "2", "--json"]
    assert lit_mbrl.evaluate.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["return"]["mean"] == run.metrics["eval/return_mean"][40]
    assert found["return"]["std"] == run.metrics["eval/return_std"][40]


def test_its_model_can_be_diagnosed(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(run.checkpoints / "last.ckpt")
    output = str(tmp_path / "diagnosis")
    assert lit_mbrl.diagnose.main([checkpoint, "--output", output, "--transitions", "400"]) == 0
    assert "rollout error" in capsys.readouterr().out


def test_what_acts_by_planning_is_not_exported(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy.pt2"
    assert lit_mbrl.export.main([str(run.checkpoints / "last.ckpt"), str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("allowed: one of an algorithm with an actor; PETS acts by planning")
    assert not out.exists()


REFUSED = {
    "updates that learn nothing": (
        "pets",
        {"data.updates_per_step": 2},
        "data.updates_per_step: 2 was given; allowed: 0 for PETS",
    ),
    "no updates for one that learns by them": (
        "sac",
        {"data.updates_per_step": 0},
        "data.updates_per_step: 0 was given; allowed: an integer of at least 1",
    ),
    "a planner's own value": (
        "pets",
        {"model.planner.init_args.candidates": 1},
        "model.planner.candidates: 1 was given; allowed: an integer of at least 2",
    ),
    "an optional planner's own value": (
        "mbpo",
        {"evaluation.planner": "ARC", "evaluation.planner.init_args.horizon": 0},
        "evaluation.planner.horizon: 0 was given; allowed: an integer of at least 1",
    ),
    "a planner on top of nothing": (
        "sac",
        {"evaluation.planner": "ARC"},
        "evaluation.planner: 'ARC' was given; allowed: none for SAC",
    ),
    "no way through the ensemble": (
        "pets",
        {"model.sampling": "ts2"},
        "model.sampling: 'ts2' was given; allowed: 'ts1', 'ts_infinity', 'mean', 'elite'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_values_are_refused_in_one_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    algorithm, changed, words = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    assert lit_mbrl.fit.main(["--config", str(CONF / f"{algorithm}.yaml"), *options(changed)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {words}"), line


@pytest.mark.parametrize("planner", ["RandomShooting", "CEM", "MPPI", "ICEM"])
def test_a_planner_is_chosen_by_its_name(
    planner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = ["--model.planner", f"lit_mbrl.planning.{planner}"]
    agent: Any = build(["--config", str(CONF / "pets.yaml"), *chosen]).model
    assert type(agent.planner).__name__ == planner


def test_an_evaluation_with_a_planner_on_top(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the callback and of the command, which find the same; the bare policy does otherwise."""
    planner = {"evaluation.planner": "ARC", "evaluation.planner.init_args.horizon": 4}
    values = {**TINY, **TINY_MODEL, **planner, "data.env_id": "Hopper-v5"}
    run = execute("mppve", tmp_path, CONF / "mppve.yaml", values)
    checkpoint = str(run.checkpoints / "last.ckpt")
    logged = run.metrics["eval/return_mean"][40]
    found = []
    for chosen in ([], ["--planner", "ARC", "--planner.horizon", "4"]):
        capsys.readouterr()
        assert lit_mbrl.evaluate.main([checkpoint, "--episodes", "2", "--json", *chosen]) == 0
        found.append(json.loads(capsys.readouterr().out)["return"]["mean"])
    assert found[1] == logged
    assert found[0] != logged
    assert lit_mbrl.evaluate.main([checkpoint, "--planner", "ARC", "--planner.horizon", "2"]) == 2
    assert "allowed: a horizon of at least 3" in capsys.readouterr().err
