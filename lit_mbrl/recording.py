"""What a run was: its configuration, command line and commit, kept with it."""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import SaveConfigCallback

import lit_mbrl.callbacks
from lit_mbrl.callbacks import Results
from lit_mbrl.callbacks.trainer import callback_of, run_logger_of


class RecordConfiguration(SaveConfigCallback):
    """Stores the resolved configuration with the run, and tags the run."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, save_to_log_dir=False, **kwargs)  # type: ignore[misc]

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's hook, called once before training."""
        text = self.parser.dump(self.config, skip_none=False)
        command = shlex.join(["python", "-m", "lit_mbrl.fit", *sys.argv[1:]])
        commit = current_commit()
        if (results := callback_of(trainer, Results)) is not None:
            config = yaml.safe_load(text)
            results.run = {"command": command, "commit": commit, "configuration": config}
        logger = run_logger_of(trainer)
        if logger is not None and not logger.goes_on:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            tags = {
                "algorithm": type(pl_module).__name__,
                "task": data.env_id,
                "seed": data.seed,
                "precision": trainer.precision,
                "commit": commit,
                "command": command,
            }
            for key, value in tags.items():
                logger.experiment.set_tag(logger.run_id, key, value)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "config.yaml")
                path.write_text(text)
                logger.experiment.log_artifact(logger.run_id, str(path))


def current_commit() -> str:
    """The commit of the checkout that runs, with `-dirty` if it was changed; else `unknown`.

    A changed file under results/ is no change: runs write there. Callbacks of another folder are
    one: Python finds lit_mbrl in the working directory, and callbacks/ where it is installed.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        folder = Path(__file__).parent
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # Installed elsewhere, the package may lie in a repository that is not its own.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("diff", "--name-only", "HEAD", "--", ":/", ":(top,exclude)results")
        top = Path(git("rev-parse", "--show-toplevel"))
        whole = Path(lit_mbrl.callbacks.__file__).resolve().is_relative_to(top)
        return git("rev-parse", "HEAD") + ("-dirty" if changed or not whole else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
