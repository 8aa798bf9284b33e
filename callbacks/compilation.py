"""When gradient steps and plans begin to run compiled, and on a GPU as graphs."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lit_mbrl.compilation import Compiler
from lit_mbrl.errors import require

from .trainer import env_steps


class Compilation(Callback):
    """Gradient steps, fits and the collector's plans run compiled from an environment step on.

    See `Compiler`. Plans are PETS's and LOOP's. On a GPU what algorithms hand out by
    `Compiler.capture`, and the collector's actions, are CUDA graphs from then on.

    Compiling takes some ten seconds for each kind of them, the first time on a machine; a
    short run does not get them back. The step at which it begins is the same for a run that goes on
    from a checkpoint, which so repeats the run that was not cut.

    Args:
        after: Environment step after which it begins, 0 with the first fit; null never compiles.
    """

    def __init__(self, after: int | None = None):
        require(after is None or after >= 0, "compilation.after", after, "an integer >= 0, or null")
        self.after = after

    def settings(self) -> tuple[int | None]:
        """What a run that goes on must have had too."""
        return (self.after,)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin at once in a run that goes on from behind that step.

        Lightning has a batch made, for which the collector acts, before `on_train_batch_start`.
        """
        self._enable(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Begin if due."""
        self._enable(trainer, pl_module)

    def _enable(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.after is not None and (self.after == 0 or env_steps(trainer) > self.after):
            for module in pl_module.modules():
                if isinstance(compiler := getattr(module, "compiler", None), Compiler):
                    compiler.enabled = True
