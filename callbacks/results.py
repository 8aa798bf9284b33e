"""Raw evidence: one row an evaluation, beside what produced it."""

import csv
import os
import re
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer

from lit_mbrl import MKL_KERNELS
from lit_mbrl.errors import require, writing

from .evaluation import Evaluated, evaluations, latest
from .trainer import data_of


class Results(Callback):
    """Writes `seed<n>.csv` and `seed<n>.yaml` under a folder; inert without one.

    The YAML file holds the command line, the commit, the machine, whether the run has finished,
    and the resolved configuration. Of the machine `mkl` says which kernels `lit_mbrl.mkl` had MKL
    run, where it did, since a run is repeated bit by bit with the same kernels only.

    Args:
        folder: Such as results/mppve/InvertedPendulum-v5; nothing is written if None.
    """

    def __init__(self, folder: str | None = None):
        self.folder = folder
        self.run: dict[str, Any] = {}
        self._written: Evaluated | None = None

    def make_folder(self, seed: int, goes_on: bool) -> None:
        """Make the folder, before there is a run.

        Args:
            seed: Of the run.
            goes_on: Whether it continues one, whose results are then its own.

        Raises:
            ConfigurationError: If it cannot be made or written to, or has the results of another
                run of this seed that has ended: they would be lost.
        """
        if self.folder is None:
            return
        path, described = (Path(self.folder, f"seed{seed}.{kind}") for kind in ("csv", "yaml"))
        ended = described.is_file() and re.search(r"(?m)^finished: true$", described.read_text())
        allowed = f"one without the {path.name} of a run that has ended"
        require(goes_on or not ended, "results.folder", self.folder, allowed)
        with writing("results.folder", self.folder, "a folder that can be made and written to"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what runs, and begin the table; a run that goes on has rows already."""
        if self.folder is None:
            return
        self._describe(trainer, finished=False)
        history = evaluations(trainer)
        self._written = history[-1] if history else None
        with self._path(trainer, "csv").open("w", newline="") as file:
            csv.writer(file).writerows([Evaluated._fields, *map(_row, history)])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Add the row of a new evaluation."""
        evaluated = latest(trainer)
        if self.folder is None or evaluated is None or evaluated is self._written:
            return
        self._written = evaluated
        with self._path(trainer, "csv").open("a", newline="") as file:
            csv.writer(file).writerow(_row(evaluated))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that the run was not cut short."""
        if self.folder is not None:
            self._describe(trainer, finished=True)

    def _path(self, trainer: Trainer, suffix: str) -> Path:
        assert self.folder is not None
        return Path(self.folder, f"seed{data_of(trainer).seed}.{suffix}")

    def _describe(self, trainer: Trainer, finished: bool) -> None:
        machine: dict[str, Any] = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
        if MKL_KERNELS:
            machine["mkl"] = MKL_KERNELS
        if torch.cuda.is_available():
            machine["gpu"] = torch.cuda.get_device_name()
        run = {"finished": finished, "machine": machine, **self.run}
        self._path(trainer, "yaml").write_text(yaml.safe_dump(run, sort_keys=False))


def _row(evaluated: Evaluated) -> list[str]:
    return [str(evaluated.env_step), *(f"{value:.4f}" for value in evaluated[1:])]
