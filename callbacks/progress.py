"""What is seen on the screen."""

import sys
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from .evaluation import latest
from .trainer import data_of, env_steps


class Progress(ProgressBar):
    """One bar over all environment steps, with the last evaluated return and steps per second.

    Where the output is no terminal, each evaluation gets a line instead, so that log files stay
    readable.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None
        self._enabled = True
        self._started = 0.0
        self._first = self._said = 0

    def disable(self) -> None:
        """Lightning's hook: show nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Lightning's hook: show again."""
        self._enabled = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the bar; the warm-up and the first fit follow."""
        super().setup(trainer, pl_module, stage)
        self._started = time.monotonic()
        if self._enabled and sys.stderr.isatty():
            self._bar = tqdm(desc="warm-up", unit=" env steps", dynamic_ncols=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The bar and its clock: neither warm-up steps are counted nor those of an earlier part."""
        self._started, self._first = time.monotonic(), env_steps(trainer)
        evaluated = latest(trainer)
        self._said = evaluated.env_step if evaluated is not None else 0
        if self._bar is not None:
            self._bar.set_description_str("")
            self._bar.reset(int(trainer.num_training_batches * (trainer.max_epochs or 0)))
            self._bar.initial = self._bar.n = self._first

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Move the bar, or say what was evaluated."""
        data = data_of(trainer)
        evaluated = latest(trainer)
        if self._bar is not None:
            shown = {"episode": data.last_episode_return}
            if evaluated is not None:
                shown["return"] = evaluated.return_mean
            known = {name: f"{value:.1f}" for name, value in shown.items() if value is not None}
            self._bar.set_postfix(known, refresh=False)
            self._bar.update(1)
        elif self._enabled and evaluated is not None and evaluated.env_step != self._said:
            self._said = evaluated.env_step
            rate = (evaluated.env_step - self._first) / (time.monotonic() - self._started)
            print(
                f"environment step {evaluated.env_step:,}: return {evaluated.return_mean:.1f} "
                f"± {evaluated.return_std:.1f}, {rate:.1f} steps/s",
                flush=True,
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
