"""Tiny runs through the command line, read back from their MLflow store."""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from lit_mbrl.checkpoints import RUN, read
from lit_mbrl.fit import main

CONF = Path(__file__).parents[1] / "conf"

# A run of two fits, two evaluations and two logs, as small as one can be.
TINY: dict[str, Any] = {
    "model.hidden_sizes": [16, 16],
    "data.batch_size": 32,
    "data.updates_per_step": 2,
    "data.warmup_steps": 200,
    "data.steps_per_epoch": 40,
    "evaluation.every": 20,
    "evaluation.episodes": 2,
    "checkpoint.every": 20,
    "throughput.every": 20,
    "registration.enabled": False,
    "trainer.max_epochs": 1,
    "trainer.log_every_n_steps": 20,
    "trainer.accelerator": "cpu",
}
TINY_MODEL: dict[str, Any] = {
    "model.dynamics_hidden_sizes": [16, 16],
    "model.dynamics_weight_decay": [0.0, 0.0, 0.0],
    "model.dynamics_networks": 3,
    "model.dynamics_elites": 2,
    "model.fit_patience": 1,  # a fit's epochs are single updates here, and no more is to be learned
    "data.real_ratio": 0.25,
    "retraining.every": 20,
    "retraining.rollouts": 200,
    "retraining.retain_steps": 40,
}
TINY_PLANNER: dict[str, Any] = {
    "model.planner": "ICEM",
    "model.planner.init_args.horizon": 4,
    "model.planner.init_args.candidates": 10,
    "model.planner.init_args.elites": 4,
    "model.planner.init_args.iterations": 2,
    "model.particles": 2,
    "model.reward": "null",
    "data.updates_per_step": 0,
    "data.real_ratio": 1.0,
    "retraining.rollouts": 0,
}

# Logged at every step, and at every evaluation.
EVERY_STEP = ("critic/loss", "critic/value", "actor/loss", "actor/entropy", "temperature")
EVERY_EVALUATION = ("eval/return_mean", "eval/return_std", "eval/episode_length")

History = dict[str, dict[int, float]]
Lost = Callable[[int, int], None]


@dataclass
class Run:
    """What a finished run has left: `metrics` are values by name and environment step."""

    algorithm: str
    status: int
    lines: list[str]
    folder: Path
    run_id: str
    overrides: dict[str, Any]
    config: dict[str, Any]
    metrics: History

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints" / self.run_id


def options(values: dict[str, Any]) -> list[str]:
    return [word for key, value in values.items() for word in (f"--{key}", str(value))]


class Terminal(io.StringIO):
    """A terminal for a run to show its bar on, which keeps it."""

    def isatty(self) -> bool:
        return True


def execute(algorithm: str, folder: Path, config: Path, overrides: dict[str, Any]) -> Run:
    """Train in `folder` and read the run back from its MLflow store."""
    out = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
    ):
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(sys, "argv", ["fit"])
        status = main(["--config", str(config), *options(overrides)])
    lines = out.getvalue().splitlines()
    found = re.search(r"run (\w{32})", lines[-1])
    assert found, lines
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    stored = client.download_artifacts(found[1], "config.yaml", str(folder))
    metrics = {
        name: {entry.step: entry.value for entry in client.get_metric_history(found[1], name)}
        for name in client.get_run(found[1]).data.metrics
    }
    text = Path(stored).read_text()
    run_config = yaml.safe_load(text)
    return Run(algorithm, status, lines, folder, found[1], overrides, run_config, metrics)


def only_run(uri: str) -> MlflowRun:
    """The one run that a store knows."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("lit_mbrl")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def losses(
    uri: str, folder: Path, last: int = 40, evaluations: Iterable[int] = (20, 40)
) -> tuple[int, int]:
    """How many transitions and metrics are missing of a run that began like `TINY`.

    Args:
        uri: Of a store that knows no other run.
        folder: Under which its only checkpoints are.
        last: The environment step that it has come to.
        evaluations: Environment steps at which it evaluated.
    """
    run_id = only_run(uri).info.run_id
    expected = {(name, step) for name in EVERY_STEP for step in range(1, last + 1)}
    expected |= {(name, step) for name in EVERY_EVALUATION for step in evaluations}
    client = MlflowClient(uri)
    found = {
        (name, entry.step)
        for name in (*EVERY_STEP, *EVERY_EVALUATION)
        for entry in client.get_metric_history(run_id, name)
    }
    (path,) = folder.rglob("last.ckpt")
    stored = read(path)[RUN]["data"]["replay"]["steps"]
    return TINY["data.warmup_steps"] + last - stored, len(expected - found)


def mean_entropy(run: Run) -> float:
    """Of a policy that is still new, on InvertedPendulum, in nats of one step.

    The most that an action in [-1, 1] can have is log 2, 0.69, and a new policy is not far from it.
    """
    entropies = run.metrics["actor/entropy"].values()
    return sum(entropies) / len(entropies)


def learned(run: Run, after: int = -1) -> History:
    """The metrics that do not tell the time, of the steps after one."""
    metrics = {
        name: {step: value for step, value in values.items() if step > after}
        for name, values in run.metrics.items()
        if not name.startswith("time/")
    }
    return {name: values for name, values in metrics.items() if values}
