"""Logging at the environment step."""

from collections.abc import Mapping

from pytorch_lightning import Trainer


def env_steps(trainer: Trainer) -> int:
    """Environment steps taken: Lightning's count of batches, one a step."""
    return trainer.fit_loop.total_batch_idx + 1


def log(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Send metrics to every logger now, with the environment step as x-axis."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=env_steps(trainer))
