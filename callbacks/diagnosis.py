"""Looks into the dynamics model."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lit_mbrl.diagnosis import diagnose
from lit_mbrl.errors import first_line, require
from lit_mbrl.held_out import held_out, require_transitions

from .rollout_length import RolloutLength
from .trainer import callback_of, data_of, env_steps, log, phase, run_logger_of


class Diagnosis(Callback):
    """Judges the present model by new transitions of the task, every so many environment steps.

    The figures of `lit_mbrl.diagnose` become artifacts of the MLflow run, under
    figures/step_<environment step>, and their numbers metrics. Copies of the task and random
    generators are its own: a run learns the same with it as without it.

    Args:
        every: Environment steps from diagnosis to diagnosis; 0 makes none.
        transitions: How many are collected for each.
        seed: Of their episodes. The command line sets it to `seed_everything`.
    """

    def __init__(self, every: int = 0, transitions: int = 4000, seed: int = 0):
        require(every >= 0, "diagnosis.every", every, "an integer >= 0; 0 makes none")
        require_transitions("diagnosis.transitions", transitions)
        self.every, self.transitions, self.seed = every, transitions, seed

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Diagnose if due; what fails here does not fail the run."""
        if not self.every or env_steps(trainer) % self.every:
            return
        try:
            with phase(trainer, "diagnose"):
                self._diagnose(trainer, pl_module)
        except Exception as error:
            words = f"no diagnosis at environment step {env_steps(trainer):,}:"
            print(words, first_line(error), file=sys.stderr)

    def _diagnose(self, trainer: Trainer, agent: Any) -> None:
        from lit_mbrl.diagnosis_page import write_diagnosis  # most runs need no matplotlib

        data, step = data_of(trainer), env_steps(trainer)
        schedule = callback_of(trainer, RolloutLength)
        length = agent.rollout_length if schedule is None else schedule.longest
        real = held_out(agent, data.env_id, data.env_kwargs, self.transitions, self.seed)
        found = diagnose(agent.dynamics, real, length, self.seed)
        log(trainer, found.metrics())
        title = f"{type(agent).__name__} on {data.env_id}, environment step {step:,}"
        if (logger := run_logger_of(trainer)) is not None:
            with tempfile.TemporaryDirectory() as folder:
                write_diagnosis(found, title, Path(folder))
                run_id = str(logger.run_id)
                logger.experiment.log_artifacts(run_id, folder, f"figures/step_{step}")
