"""What callbacks ask of the trainer."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from pytorch_lightning import Trainer
from pytorch_lightning.profilers import Profiler

from lit_mbrl.data import ReplayData
from lit_mbrl.tracking import RunLogger

Kind = TypeVar("Kind")


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


def callback_of(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """The trainer's first callback of a class, if it has one."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((each for each in callbacks if isinstance(each, kind)), None)


def run_logger_of(trainer: Trainer) -> RunLogger | None:
    """The logger that keeps the run in MLflow, if there is one, beside whatever others."""
    return next((each for each in trainer.loggers if isinstance(each, RunLogger)), None)


def run_id_of(trainer: Trainer) -> str | None:
    """Of the run in MLflow; without one, what the first logger calls its own."""
    logger = run_logger_of(trainer) or trainer.logger
    return None if logger is None or logger.version is None else str(logger.version)


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
