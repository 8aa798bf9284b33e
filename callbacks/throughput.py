"""Where the time goes."""

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lit_mbrl.errors import require
from lit_mbrl.profiling import PhaseProfiler

from .trainer import data_of, env_steps, log, profiler_of


class Throughput(Callback):
    """Logs steps and updates per second, each phase's share of the time, and training returns.

    Rates and shares are taken over the time since they were logged last; the return is that of the
    latest episode that ended. The shares need `trainer.profiler` to be
    `lit_mbrl.profiling.PhaseProfiler`, the default.

    Args:
        every: Environment steps from log to log.
    """

    def __init__(self, every: int = 250):
        require(every >= 1, "throughput.every", every, "an integer of at least 1")
        self.every = every
        self._since = 0.0
        self._steps = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Start the clock at the first step: the warm-up and the first fit are not throughput."""
        if not self._since:
            self._since, self._steps = time.monotonic(), env_steps(trainer) - 1
            if isinstance(profiler := profiler_of(trainer), PhaseProfiler):
                profiler.take()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log if due."""
        steps = env_steps(trainer)
        if steps % self.every:
            return
        data = data_of(trainer)
        now = time.monotonic()
        seconds, taken = now - self._since, steps - self._steps
        metrics = {
            "time/env_steps_per_second": taken / seconds,
            "time/updates_per_second": taken * data.updates_per_step / seconds,
        }
        if isinstance(profiler := profiler_of(trainer), PhaseProfiler):
            for phase, spent in profiler.take().items():
                metrics[f"time/share_{phase}"] = spent / seconds
        if data.last_episode_return is not None:
            metrics["train/episode_return"] = data.last_episode_return
        self._since, self._steps = now, steps
        log(trainer, metrics)
