"""What the tests of runs that go on share: a run of two epochs, and what another lacks of it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tiny import (
    CONF,
    TINY,
    TINY_MODEL,
    TINY_PLANNER,
    Run,
    execute,
    learned,
    options,
)

from lit_mbrl.checkpoints import RUN, read


def overrides(algorithm: str) -> dict[str, Any]:
    """Two epochs of 40 steps, saved every 14: in mid-epoch, and between two fits.

    MBPO's and PETS's begin to run compiled in the midst of the first.
    """
    return {
        **{k: v for k, v in TINY.items() if algorithm != "PETS" or k != "model.hidden_sizes"},
        **({} if algorithm == "SAC" else TINY_MODEL),
        **({"compilation.after": 20} if algorithm in ("MBPO", "PETS") else {}),
        **(TINY_PLANNER if algorithm == "PETS" else {}),
        "data.env_id": "Hopper-v5",
        "checkpoint.every": 14,
        "trainer.max_epochs": 2,
        "trainer.log_every_n_steps": 1,
        "results.folder": "results",
    }


def start(algorithm: str, folder: Path, **changed: Any) -> Run:
    folder.mkdir(exist_ok=True)
    config = CONF / f"{algorithm.lower()}.yaml"
    return execute(algorithm, folder, config, {**overrides(algorithm), **changed})


def transitions_lost(path: Path) -> int:
    """How many transitions a checkpoint lacks."""
    saved = read(path)[RUN]
    return TINY["data.warmup_steps"] + saved["env_step"] - saved["data"]["replay"]["steps"]


def metrics_lost(run: Run, whole: Run, after: int = -1) -> int:
    """How many metrics of a whole run another one lacks, or has otherwise in the last bit."""
    found = learned(run)
    return sum(
        found.get(name, {}).get(step) != value
        for name, values in learned(whole, after).items()
        for step, value in values.items()
    )


def process(folder: Path, algorithm: str, values: dict[str, Any]) -> subprocess.Popen[str]:
    """A run in a process of its own."""
    config = CONF / f"{algorithm.lower()}.yaml"
    return subprocess.Popen(
        [sys.executable, "-m", "lit_mbrl.fit", "--config", str(config), *options(values)],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
