"""What is seen on the screen."""

import json
import os
import sys
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from .evaluation import latest
from .retraining import model_error
from .trainer import data_of, env_steps, last_step

FOLLOWED = "LIT_MBRL_FOLLOWED"
"""Environment variable of a process whose standard output `lit_mbrl.seeds` makes a bar of."""


class Progress(ProgressBar):
    """One bar over all environment steps, with the time left and how well it goes.

    It shows the returns of the last training episode and of the last evaluation, the dynamics' mean
    squared holdout error and the rollout length. Where the output is no terminal, each evaluation
    gets a line instead, so that log files stay readable.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None
        self._enabled = True
        self._started = 0.0
        self._first = self._said = 0
        self._tell_again = 0.0  # when a follower is told again

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
            self._bar.reset(last_step(trainer))
            self._bar.initial = self._bar.n = self._first

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Move the bar, or say what was evaluated."""
        evaluated = latest(trainer)
        if self._bar is not None:
            self._bar.set_postfix(_shown(trainer), refresh=False)
            self._bar.update(1)
        elif self._enabled and FOLLOWED in os.environ:
            if (now := time.monotonic()) >= self._tell_again:
                self._tell_again = now + 1
                told = {"step": env_steps(trainer), "of": last_step(trainer)}
                print(json.dumps({**told, "shown": _shown(trainer)}), flush=True)
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


def _shown(trainer: Trainer) -> dict[str, str]:
    """What stands behind the bar, as far as it is known."""
    agent: Any = trainer.lightning_module
    imagines = hasattr(agent, "imagine")
    evaluated, error = latest(trainer), model_error(trainer)
    episode = data_of(trainer).last_episode_return
    shown = {
        "episode": None if episode is None else f"{episode:.1f}",
        "return": None if evaluated is None else f"{evaluated.return_mean:.1f}",
        "model_error": None if error is None else f"{error:.2g}",
        "rollout": str(agent.rollout_length) if imagines and error is not None else None,
    }
    return {name: text for name, text in shown.items() if text is not None}
