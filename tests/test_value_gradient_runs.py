"""S2VG and SVG through the command line: what they log, clip, and go on with."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import CONF, TINY, Run, Terminal, execute, learned, mean_entropy

TINY_SVG: dict[str, Any] = {
    "model.dynamics_hidden_sizes": [16, 16],
    "data.updates_per_step": 1,
    "data.batch_size": 16,
    "retraining.every": 20,
}
CHANGED: dict[str, dict[str, Any]] = {
    "s2vg": {"model.model_hidden_sizes": [16, 16], "data.updates_per_step": 1},
    # V begins before the policy does, and the run is cut between.
    "svg1": {**TINY_SVG, "model.value_updates": 18},
    "svginfinity": {**TINY_SVG, "model.plan_length": 4, "data.recent_windows": 100},
}
METRICS = {
    "s2vg": {"critic/value", "actor/entropy", "dynamics/loss", "dynamics/reward_loss"},
    "svg1": {"critic/value", "actor/weight"},
    "svginfinity": {"actor/weight"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One working directory for all runs: a new MLflow store takes longer than a tiny run."""
    yield tmp_path_factory.mktemp("runs")


def run(name: str, folder: Path, **changed: Any) -> Run:
    steps = {"data.steps_per_epoch": 29, "trainer.log_every_n_steps": 1, "checkpoint.every": 15}
    overrides = {**TINY, **CHANGED[name], **steps, **changed}
    return execute(name, folder, CONF / f"{name}.yaml", overrides)


@pytest.mark.parametrize("name", CHANGED)
def test_a_run_logs_its_gradients_and_goes_on_as_if_never_stopped(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    whole = run(name, folder)
    assert whole.status == 0
    assert "29/29" in terminal.getvalue()
    logged = {metric for metric, values in whole.metrics.items() if 29 in values}
    assert {*METRICS[name], "actor/loss", "actor/gradient_norm"} <= logged
    assert all(norm > 0 for norm in whole.metrics["actor/gradient_norm"].values())
    if "actor/entropy" in METRICS[name]:
        assert 0 < mean_entropy(whole) < 1
    checkpoint = whole.checkpoints / "last.previous.ckpt"
    again = run(name, tmp_path, ckpt_path=checkpoint)
    assert "environment step 15" in again.lines[0]
    assert learned(again) == learned(whole, after=15)


@pytest.mark.parametrize("name", CHANGED)
def test_gradients_that_are_clipped_make_another_run(name: str, folder: Path) -> None:
    """And the norm that is logged is the one before the clipping."""
    norms = [
        run(name, folder, **{"model.actor_max_norm": bound}).metrics["actor/gradient_norm"]
        for bound in (1e-9, 1e9)
    ]
    first = min(norms[0])
    assert norms[0][first] == norms[1][first] > 1e-9
    assert norms[0] != norms[1]
