"""Algorithms that look ahead, through the command line: what they remember goes on with a run."""

from pathlib import Path
from typing import Any

import pytest
from tiny import CONF, TINY, Run, execute, learned

from lit_mbrl.trained import load

LOOKAHEAD: dict[str, Any] = {
    **TINY,
    "model.dynamics_hidden_sizes": [16, 16],
    "model.dynamics_weight_decay": [0.0, 0.0, 0.0],
    "model.dynamics_networks": 2,
    "model.dynamics_elites": 2,
    "model.particles": 2,
    "model.planner.init_args.candidates": 10,
    "model.planner.init_args.horizon": 3,
    "retraining.every": 20,
    "data.steps_per_epoch": 29,
    "checkpoint.every": 15,
    "trainer.log_every_n_steps": 1,
}
ELITES = {"model.planner.init_args.elites": 4}
OVERRIDES: dict[str, dict[str, Any]] = {
    "loop": {},
    "loopsarsa": ELITES,
    "poplina": ELITES,
    "poplinp": {**ELITES, "data.updates_per_step": 0},
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_continued_run_is_the_run_that_was_never_stopped(name: str, tmp_path: Path) -> None:
    """From step 15, in mid-episode and between two fits, to 29; and its best can be loaded."""

    def run(folder: str, **changed: Any) -> Run:
        (tmp_path / folder).mkdir()
        config = CONF / f"{name}.yaml"
        return execute(name, tmp_path / folder, config, {**LOOKAHEAD, **OVERRIDES[name], **changed})

    whole = run("whole")
    assert whole.status == 0
    again = run("again", ckpt_path=whole.checkpoints / "last.previous.ckpt")
    assert "environment step 15" in again.lines[0]
    assert learned(again) == learned(whole, after=15)
    trained = load(whole.checkpoints / "best.ckpt")
    assert trained.agent.planner.candidates == 10  # type: ignore[union-attr]
