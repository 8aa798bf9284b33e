"""A film of the trained policy."""

import sys
import tempfile
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from lit_mbrl.errors import one_line
from lit_mbrl.video import filmed

from .evaluation import run_episodes
from .trainer import data_of, env_steps, run_logger_of


class Filming(Callback):
    """Films the trained policy at the end of a run, for the MLflow run's artifacts, under videos/.

    It is the first episode of the evaluation at that step, drawn as `lit_mbrl.evaluate --video`
    does it. A frame takes 12 ms of a core for the pendulum and 70 for the larger robots.

    Args:
        enabled: Whether to film it.
    """

    def __init__(self, enabled: bool = False):
        self.enabled = enabled

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Film it; what fails here does not fail the run."""
        logger = run_logger_of(trainer)
        if not self.enabled or logger is None:
            return
        data = data_of(trainer)
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, f"step_{env_steps(trainer)}.mp4")
                env = filmed(data.env_id, data.env_kwargs, path)
                try:
                    run_episodes(pl_module, [env], data.seed)
                finally:
                    env.close()
                logger.log_file(path, "videos")
        except Exception as error:  # of any kind: it depends on what is missing
            print("no film of the policy:", one_line(error), file=sys.stderr)
