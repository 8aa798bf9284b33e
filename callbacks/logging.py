"""Logging at the environment step."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Trainer


def env_steps(trainer: Trainer) -> int:
    """Environment steps taken, see `Agent.env_steps`."""
    agent: Any = trainer.lightning_module
    return int(agent.env_steps)


def log(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Send metrics to every logger now, with the environment step as x-axis."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=env_steps(trainer))
