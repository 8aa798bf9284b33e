"""A run that was stopped and goes on is the run that was never stopped."""

from pathlib import Path
from typing import Any

import pytest
from tiny import CONF, TINY, TINY_MODEL, History, Run, execute, learned


def overrides(algorithm: str) -> dict[str, Any]:
    """Two epochs of 40 steps, saved every 7: in mid-epoch, and between two fits."""
    return {
        **TINY,
        **({} if algorithm == "SAC" else TINY_MODEL),
        "data.env_id": "Hopper-v5",
        "checkpoint.every": 7,
        "trainer.max_epochs": 2,
        "trainer.log_every_n_steps": 1,
        "results.folder": "results",
    }


def start(algorithm: str, folder: Path, **changed: Any) -> Run:
    config = CONF / f"{algorithm.lower()}.yaml"
    return execute(algorithm, folder, config, {**overrides(algorithm), **changed})


def rows(run: Run) -> list[str]:
    """Results without their last column, the time."""
    text = (run.folder / "results" / "seed0.csv").read_text()
    return [line.rpartition(",")[0] for line in text.splitlines()]


@pytest.fixture(scope="module", params=["MPPVE", "MBPO", "SAC"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """80 steps without a stop."""
    run = start(request.param, tmp_path_factory.mktemp(request.param))
    assert run.status == 0
    return run


def test_a_continued_run_logs_the_same_numbers(whole: Run, tmp_path: Path) -> None:
    """From step 70, in mid-epoch and mid-episode, to 80; elsewhere, so that nothing is shared."""
    checkpoint = whole.checkpoints / "last.previous.ckpt"
    again = start(whole.algorithm, tmp_path, ckpt_path=checkpoint)
    assert again.lines[0] == f"going on from {checkpoint}, environment step 70"
    assert "does not know run" in again.lines[1]
    assert learned(again) == learned(whole, after=70)
    assert rows(again) == rows(whole)


def test_a_run_that_ended_at_an_epochs_end_is_taken_further(whole: Run, tmp_path: Path) -> None:
    """The first half, then `last`: the same MLflow run has the numbers of the whole."""
    first = start(whole.algorithm, tmp_path, **{"trainer.max_epochs": 1, "checkpoint.every": 40})
    assert max(first.metrics["critic/loss"]) == 40
    second = start(whole.algorithm, tmp_path, ckpt_path="last")
    assert second.run_id == first.run_id
    assert learned(second) == learned(whole)
    assert rows(second) == rows(whole)
