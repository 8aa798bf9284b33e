"""What callbacks ask of the trainer."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.profilers import Profiler

from lit_mbrl.data import ReplayData


def env_steps(trainer: Trainer) -> int:
    """Environment steps taken, see `Agent.env_steps`."""
    agent: Any = trainer.lightning_module
    return int(agent.env_steps)


def last_step(trainer: Trainer) -> int:
    """The environment step at which the run ends."""
    return (trainer.max_epochs or 0) * data_of(trainer).steps_per_epoch


def data_of(trainer: Trainer) -> ReplayData:
    """The data module that the trainer was given."""
    data: ReplayData = trainer.datamodule  # type: ignore[attr-defined]
    return data


def profiler_of(trainer: Trainer) -> Profiler:
    """The trainer's profiler."""
    profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]
    return profiler


def phase(trainer: Trainer, name: str) -> AbstractContextManager[str]:
    """Time what is done under this context as the phase `name`."""
    return profiler_of(trainer).profile(name)


def log(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Send metrics to every logger now, with the environment step as x-axis."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=env_steps(trainer))
