"""Checkpoints by environment step."""

import inspect
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import Checkpoint

from lit_mbrl.checkpoints import RUN, claim, generators, set_generators
from lit_mbrl.errors import DivergenceError, TaskError, require
from lit_mbrl.interruption import Interrupted, Interruption

from .compilation import Compilation
from .evaluation import latest
from .retraining import Retraining
from .rollout_length import RolloutLength
from .trainer import (
    callback_of,
    data_of,
    env_steps,
    last_step,
    phase,
    run_id_of,
    run_logger_of,
)


class EnvStepCheckpoint(Checkpoint):
    """Saves `last.ckpt` every so many steps and at the last, `best.ckpt` by the evaluated return.

    Lightning's own ModelCheckpoint counts gradient steps; this one counts environment steps.
    `last.ckpt` holds everything that a run goes on from: the algorithm with its optimizers, the
    replay buffers, the task in mid-episode, the counts, every random generator. `best.ckpt` holds
    the algorithm's weights. After a signal the step is finished, saved, and the run ended.

    It has to be the last of the callbacks: what the others do at the same step is then in its
    checkpoint, and the random generators are put back after they have started. The checkpoint of
    the run's last step is written when the others have ended: a run that is killed before does what
    is left when it goes on.

    Args:
        folder: Where to write; `checkpoints/<MLflow run id>` if None.
        every: Environment steps from checkpoint to checkpoint; 0 writes none.
        restores: How often a run whose networks became infinite or undefined goes on by itself from
            `last.ckpt`, with other random numbers.
        upload: Whether `best.ckpt` is stored with the MLflow run when it ends.
    """

    def __init__(
        self,
        folder: str | None = None,
        every: int = 1000,
        restores: int = 0,
        upload: bool = False,
    ):
        require(every >= 0, "checkpoint.every", every, "an integer >= 0; 0 writes none")
        require(restores >= 0, "checkpoint.restores", restores, "an integer >= 0")
        is_file = folder is not None and Path(folder).is_file()
        require(not is_file, "checkpoint.folder", folder, "a folder, or a path that is free")
        self.folder, self.every, self.restores, self.upload = folder, every, restores, upload
        self.restored = 0
        self.started = False  # before, there is nothing to save
        self.saved = False  # whether `last.ckpt` is of this run
        self.best_return: float | None = None
        self.interruption: Interruption | None = None
        self._generators: dict[str, Any] | None = None  # to be put back, or as the last step left

    @property
    def last(self) -> Path:
        """Where the newest checkpoint of this run is."""
        return Path(self.folder or "", "last.ckpt")

    @staticmethod
    def identity(agent: Any, data: Any, precision: str, *schedules: Any) -> dict[str, Any]:
        """Which run a checkpoint is of: algorithm, task, seed, and whatever else it learns by.

        `settings` has the values as text, by their options, and `untouched` names those that have
        their defaults: see `other_settings`.
        """
        settings, untouched = {"trainer.precision": repr(precision)}, []
        for group, owner in (("model", agent), ("data", data)):
            defaults = inspect.signature(type(owner)).parameters
            for name, value in sorted(owner.hparams.items()):
                settings[f"{group}.{name}"] = repr(value)
                if name in defaults and value == defaults[name].default:
                    untouched.append(f"{group}.{name}")
        for schedule in schedules:
            group = re.sub(r"(?<!^)(?=[A-Z])", "_", type(schedule).__name__).lower()
            settings[group] = repr(schedule.settings())
        return {
            "algorithm": type(agent).__name__,
            "task": data.env_id,
            "seed": data.seed,
            "settings": settings,
            "untouched": untouched,
        }

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Name the folder after the run, and keep other processes out of it.

        Raises:
            ConfigurationError: If another one trains the run.
        """
        if self.folder is None:
            self.folder = str(Path("checkpoints", run_id_of(trainer) or "unnamed"))
        free = not self.every or claim(Path(self.folder))
        require(free, "checkpoint.folder", self.folder, "one that no other process writes into")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning's hook: add what Lightning does not know of, and put its own counts right."""
        steps_per_epoch = data_of(trainer).steps_per_epoch
        _set_progress(checkpoint["loops"]["fit_loop"], env_steps(trainer), steps_per_epoch)
        checkpoint[RUN] = {
            "identity": self.identity(
                pl_module, data_of(trainer), trainer.precision, *schedules_of(trainer)
            ),
            "run_id": run_id_of(trainer),
            "env_step": env_steps(trainer),
            "best_return": self.best_return,
            "data": data_of(trainer).snapshot(),
            "generators": self._generators or generators(),
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning's hook: the data module fills its buffers when it is asked for its loader."""
        saved, data = checkpoint[RUN], data_of(trainer)
        _set_progress(checkpoint["loops"]["fit_loop"], saved["env_step"], data.steps_per_epoch)
        self._generators = saved["generators"]
        if self.folder is not None and Path(self.folder, "best.ckpt").exists():
            self.best_return = saved["best_return"]
        data.restore(saved["data"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the random generators back, now that nothing else will draw before the next step."""
        self.started = True
        if self.interruption is not None:
            self.interruption.listen()
        if self._generators is not None:
            set_generators(self._generators)
            self._generators = None
        if self.restored:  # the same numbers would lead to the same end
            seed_everything(data_of(trainer).seed + self.restored, verbose=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Save if due, and end the run if it was interrupted.

        Raises:
            DivergenceError: If the weights are not finite: the last checkpoint stays a good one.
            Interrupted: After a signal.
        """
        self._generators = None  # an end that did not come, such as before `trainer.min_epochs`
        signum = self.interruption.signum if self.interruption else None
        saved, ends = False, env_steps(trainer) == last_step(trainer)
        if self.every:
            with phase(trainer, "checkpoint"):
                self._save_best(trainer)
                if ends or signum is not None or env_steps(trainer) % self.every == 0:
                    require_finite(pl_module)
                    if ends:
                        self._generators = generators()
                    else:
                        saved = self._save(trainer, "last.ckpt")
        if signum is not None and not ends:
            raise Interrupted(signum, env_steps(trainer), saved)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See to it that the last step is saved of a run that a user's callback ends early.

        Raises:
            DivergenceError: As `on_train_batch_end`.
        """
        if self.every and trainer.should_stop and env_steps(trainer) < last_step(trainer):
            require_finite(pl_module)
            self._generators = generators()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the best checkpoint with the run, if asked for, and save the last step."""
        best, logger = Path(self.folder or "", "best.ckpt"), run_logger_of(trainer)
        if self.upload and logger is not None and best.exists():
            logger.log_file(best)
        if self._generators is not None:
            self._save(trainer, "last.ckpt")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Keep what was learned before the task failed."""
        if isinstance(exception, TaskError) and self.started and self.every and env_steps(trainer):
            with suppress(DivergenceError):
                require_finite(pl_module)
                self._save(trainer, "last.ckpt")

    def _save(self, trainer: Trainer, name: str, weights_only: bool = False) -> bool:
        """Write a checkpoint; where it cannot be, the one before stays and training goes on."""
        assert self.folder is not None
        path = Path(self.folder, name)
        try:
            trainer.save_checkpoint(path, weights_only=weights_only)
            self.saved |= name == "last.ckpt"
            return True
        except OSError as error:
            print(
                f"checkpoint {path} was not written at environment step {env_steps(trainer):,} "
                f"({error.strerror}); the one before it is kept",
                file=sys.stderr,
                flush=True,
            )
            return False

    def _save_best(self, trainer: Trainer) -> None:
        evaluated = latest(trainer)
        if evaluated is None or evaluated.env_step != env_steps(trainer):
            return
        better = self.best_return is None or evaluated.return_mean > self.best_return
        if better and self._save(trainer, "best.ckpt", weights_only=True):
            self.best_return = evaluated.return_mean


def schedules_of(trainer: Trainer) -> list[Any]:
    """The callbacks whose settings decide what is learned."""
    kinds: tuple[type[Any], ...] = (Compilation, RolloutLength, Retraining)
    found = (callback_of(trainer, kind) for kind in kinds)
    return [callback for callback in found if callback is not None]


def require_finite(agent: LightningModule) -> None:
    """Raise a `DivergenceError` if any parameter is infinite or undefined."""
    for name, parameter in agent.named_parameters():
        if not parameter.isfinite().all():
            raise DivergenceError(f"{name} is not finite")


def _set_progress(loop: dict[str, Any], env_step: int, steps_per_epoch: int) -> None:
    """Count epochs and batches as a run does that was never stopped.

    Lightning counts otherwise after it has gone on from the end of an epoch: the next time that the
    run goes on, it would last an epoch too long.
    """
    begun = -(-env_step // steps_per_epoch)
    batch = env_step - (begun - 1) * steps_per_epoch
    epochs = {"ready": begun, "started": begun, "processed": begun - 1, "completed": begun - 1}
    loop["epoch_progress"] = {"total": epochs, "current": dict(epochs)}
    loop["epoch_loop.batch_progress"] = {
        # Saved after a batch and before Lightning has counted it as completed.
        name: {"ready": count, "started": count, "processed": count, "completed": count - 1}
        for name, count in (("total", env_step), ("current", batch))
    }
    loop["epoch_loop.batch_progress"]["is_last_batch"] = batch == steps_per_epoch
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = env_step - 1
