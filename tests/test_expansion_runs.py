"""The algorithms on unrolled paths, and DDPG, through the command line."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONF, TINY, Run, Terminal, execute, learned, mean_entropy

from lit_mbrl.trained import load

TINY_DYNAMICS: dict[str, Any] = {
    "model.dynamics_hidden_sizes": [16, 16],
    "model.dynamics_weight_decay": [0.0, 0.0, 0.0],
    "model.dynamics_networks": 3,
    "model.dynamics_elites": 2,
    "retraining.every": 20,
    "retraining.retain_steps": 40,
}
SOFT = {"critic/loss", "critic/value", "actor/loss", "actor/entropy"}
METRICS = {
    "ddpg": {"critic/loss", "critic/value", "actor/loss"},
    "sacmve": {*SOFT, "temperature"},
    "sacmvempi": {*SOFT, "temperature"},
    "sacmppve": {*SOFT, "temperature"},
    "steve": {"critic/loss", "critic/value", "actor/loss", "rollout/mean_length"},
    "maac": {*SOFT, "temperature", "actor/gradient_norm", "rollout/imagined"},
    "mpdp": {*SOFT, "actor/gradient_norm", "rollout/adaptive_length", "rollout/model_error"},
}
FITTED = {"dynamics/holdout_mse": {0, 20, 40}, "dynamics/prediction_error": {20, 40}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One working directory for all runs: a new MLflow store takes longer than a tiny run."""
    yield tmp_path_factory.mktemp("runs")


def run(name: str, folder: Path, **changed: Any) -> Run:
    model = {} if name == "ddpg" else TINY_DYNAMICS
    rollouts = {"retraining.rollouts": 200} if name == "maac" else {}
    overrides = {**TINY, **model, **rollouts, "trainer.log_every_n_steps": 1, **changed}
    return execute(name, folder, CONF / f"{name}.yaml", overrides)


@pytest.mark.parametrize("name", METRICS)
def test_a_run_logs_what_its_algorithm_tells_and_leaves_its_policy(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a terminal, whose bar says how long rollouts are where an algorithm imagines some."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    made = run(name, folder, **{"registration.enabled": name in ("ddpg", "mpdp")})
    assert made.status == 0
    assert "40/40" in terminal.getvalue()
    assert ("rollout=" in terminal.getvalue()) == (name == "maac")
    every = {metric for metric, values in made.metrics.items() if set(values) >= {1, 40}}
    fitted = {"rollout/imagined"}  # after a fit
    assert METRICS[name] - fitted <= every and METRICS[name] & fitted <= set(made.metrics)
    if name != "ddpg":
        assert {name: set(made.metrics[name]) for name in FITTED} == FITTED
    if "actor/entropy" in METRICS[name]:
        assert 0 < mean_entropy(made) < 1
    agent = load(made.checkpoints / "best.ckpt").agent
    state = torch.randn(5, 4)
    assert torch.equal(agent.act(state, deterministic=True), agent.actor.mode(state))
    registered = any(line.startswith("the policy: ") for line in made.lines)
    assert registered == (name in ("ddpg", "mpdp"))


def test_a_continued_run_of_many_policies_is_the_run_that_was_never_stopped(
    folder: Path, tmp_path: Path
) -> None:
    """MPDP, some of whose policies have taken no step yet when it is cut off at step 15."""
    changed = {"model.max_horizon": 8, "checkpoint.every": 15, "data.steps_per_epoch": 29}
    whole = run("mpdp", folder, **changed)
    checkpoint = whole.checkpoints / "last.previous.ckpt"
    again = run("mpdp", tmp_path, **changed, ckpt_path=checkpoint)
    assert "environment step 15" in again.lines[0]
    assert learned(again) == learned(whole, after=15)
