"""Checkpoints by environment step."""

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from lit_mbrl.errors import require

from .evaluation import latest
from .trainer import env_steps, phase


class EnvStepCheckpoint(Checkpoint):
    """Saves `last.ckpt` every so many environment steps, and `best.ckpt` by the evaluated return.

    Lightning's own ModelCheckpoint counts gradient steps; this one counts environment steps. A
    checkpoint holds the algorithm with its optimizers, not the replay buffers.

    Args:
        folder: Where to write; `checkpoints/<MLflow run id>` if None.
        every: Environment steps from checkpoint to checkpoint; 0 writes none.
    """

    def __init__(self, folder: str | None = None, every: int = 1000):
        require(every >= 0, "checkpoint.every", every, "an integer >= 0; 0 writes none")
        self.folder, self.every = folder, every
        self.best_return: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Name the folder after the run."""
        if self.folder is None:
            version = trainer.logger.version if trainer.logger else None
            self.folder = str(Path("checkpoints", str(version or "unnamed")))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Save if due."""
        assert self.folder is not None
        evaluated = latest(trainer)
        if not self.every:
            return
        with phase(trainer, "checkpoint"):
            if env_steps(trainer) % self.every == 0:
                trainer.save_checkpoint(Path(self.folder, "last.ckpt"), weights_only=False)
            if (
                evaluated is not None
                and evaluated.env_step == env_steps(trainer)
                and (self.best_return is None or evaluated.return_mean > self.best_return)
            ):
                self.best_return = evaluated.return_mean
                trainer.save_checkpoint(Path(self.folder, "best.ckpt"), weights_only=False)
