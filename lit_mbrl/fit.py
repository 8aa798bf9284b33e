"""Train an algorithm: `python -m lit_mbrl.fit --config conf/mppve.yaml`."""

import logging
import sys
import traceback
import warnings
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, Namespace
from lightning_fabric.utilities.exceptions import MisconfigurationException
from mlflow.exceptions import MlflowException
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from lit_mbrl.algorithms import Agent
from lit_mbrl.allocator import forget_earlier_runs, keep_freed_memory
from lit_mbrl.callbacks import (
    Compilation,
    Diagnosis,
    EnvStepCheckpoint,
    Evaluation,
    Filming,
    Progress,
    Registration,
    Results,
    Retraining,
    RolloutLength,
    Throughput,
)
from lit_mbrl.callbacks.evaluation import latest
from lit_mbrl.callbacks.trainer import run_logger_of
from lit_mbrl.checkpoints import RUN, claim, find, other_settings, read, release
from lit_mbrl.checks import check
from lit_mbrl.data import ReplayData
from lit_mbrl.denormals import flush_denormals
from lit_mbrl.errors import (
    ConfigurationError,
    DivergenceError,
    TrainingError,
    first_line,
    one_line,
    require,
)
from lit_mbrl.interruption import Interrupted, Interruption
from lit_mbrl.parser import BASE, FROM_TASK, NO_ALGORITHM, Parser, refuse_nulls
from lit_mbrl.precision import advice, bfloat16_cost
from lit_mbrl.recording import RecordConfiguration
from lit_mbrl.tracking import RunLogger

USAGE = "python -m lit_mbrl.fit --config ALGORITHM.yaml [--config TASK.yaml] [--OPTION VALUE ...]"
DESCRIPTION = """Train an algorithm: python -m lit_mbrl.fit --config conf/mppve.yaml. A task is a
second file, such as --config conf/mppve/hopper.yaml. What comes later on the line overrides what
came before it. The options of an algorithm: --model.help lit_mbrl.algorithms.MPPVE."""

CALLBACKS = {
    "compilation": Compilation,
    "rollout_length": RolloutLength,  # before the retraining that rolls out
    "retraining": Retraining,
    "evaluation": Evaluation,
    "diagnosis": Diagnosis,  # of the model that was just fitted
    "throughput": Throughput,
    "results": Results,
    "registration": Registration,
    "filming": Filming,
    "checkpoint": EnvStepCheckpoint,
}

SCHEDULES = ("compilation", "rollout_length", "retraining")
"""Those that decide what is learned."""


class FitCLI(LightningCLI):
    """Lightning's command line with our callbacks as groups and the task's sizes linked."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Register the callbacks; hand sizes and seed on."""
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Go on from a checkpoint: its path, or `last`, the newest of this algorithm, task "
            "and seed; begins a new run if there is none.",
        )
        for group, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, group)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "evaluation.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "diagnosis.seed", compute_fn=int)
        for source, target in FROM_TASK.items():
            parser.link_arguments(
                f"data.{source}", f"model.init_args.{target}", apply_on="instantiate"
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Lightning's, with what it takes for granted checked before it is used."""
        super().parse_arguments(parser, args)
        if self.config["model"]["class_path"] == BASE:
            raise ConfigurationError(NO_ALGORITHM)
        refuse_nulls(Namespace(model=self.config["model"]), Agent)
        for group, maker in {"data": ReplayData, **CALLBACKS}.items():
            refuse_nulls(self.config[group], maker, f"{group}.")
        trainer = self.config["trainer"]
        require(isinstance(trainer, Namespace), "trainer", trainer, "a group of options")
        seed = self.config["seed_everything"]
        valid = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32
        require(valid, "seed_everything", seed, "an integer from 0 to 2**32 - 1")

    def before_instantiate_classes(self) -> None:
        """Put the logger off: making it makes its store, which a refused run should not leave."""

        def put_off(class_type: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return partial(class_type, *args, **kwargs)

        self.parser.add_instantiator(put_off, RunLogger)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Lightning's, with the logger made once everything has been checked.

        Raises:
            ConfigurationError: If the trainer cannot be made, or the parts do not go together.
        """
        precision = self.config_init["trainer"]["precision"]
        # Asked of the option, because Lightning turns some into others: 16-mixed on a CPU.
        require(
            precision in (None, "32-true", "bf16-mixed"),
            "trainer.precision",
            precision,
            "32-true or bf16-mixed",
        )
        given = self.config_init["trainer"]["logger"]
        loggers = given if isinstance(given, list) else [given]
        late = any(isinstance(logger, partial) for logger in loggers)
        try:
            trainer = super().instantiate_trainer(**({"logger": False} if late else {}), **kwargs)
        except (ImportError, MisconfigurationException, TypeError, ValueError) as error:
            raise ConfigurationError(f"trainer: {error}") from error
        groups = ("compilation", "retraining", "evaluation", "diagnosis")
        callbacks = [self.config_init[group] for group in groups]
        check(trainer, self.model, self.datamodule, *callbacks)
        self._advise(precision, trainer.strategy.root_device)
        run_id = self._find_checkpoint(trainer.max_epochs or 0, trainer.precision)
        results: Results = self.config_init["results"]
        results.make_folder(self.datamodule.seed, goes_on=self.ckpt_path is not None)
        if late:
            known = {} if run_id is None else {"run_id": run_id}
            trainer.loggers = [
                made(**known) if isinstance(made, partial) else made for made in loggers
            ]
        return trainer

    def _advise(self, precision: str | None, device: torch.device) -> None:
        """Print what is no mistake but may surprise."""
        lines = []
        if precision == "bf16-mixed":
            lines.append(advice(bfloat16_cost(device)))
        data = self.datamodule
        if data.max_episode_steps is None:
            lines.append(
                f"data.env_id: {data.env_id} is registered without a time limit: an evaluation "
                "whose episodes do not end by themselves is given up after evaluation.time_limit "
                "seconds; --data.env_kwargs.max_episode_steps sets one"
            )
        for line in filter(None, lines):
            print(line, file=sys.stderr, flush=True)

    def _find_checkpoint(self, max_epochs: int, precision: str) -> str | None:
        """Settle what to go on from; returns the run that wrote it.

        Raises:
            ConfigurationError: If it does not fit the configuration.
        """
        self.checkpoint: EnvStepCheckpoint = self.config_init["checkpoint"]
        self.ckpt_path: Path | None = None
        self.complete = False  # nothing is left to do
        if (given := self.config_init["ckpt_path"]) is None:
            return None
        folder = Path(self.checkpoint.folder or "checkpoints")
        schedules = [self.config_init[group] for group in SCHEDULES]
        identity = self.checkpoint.identity(self.model, self.datamodule, precision, *schedules)
        self.ckpt_path = find(given, folder, identity)
        if self.ckpt_path is None:
            return None
        require(
            claim(self.ckpt_path.parent),
            "ckpt_path",
            str(self.ckpt_path),
            "a checkpoint of a run that no other process trains",
        )
        checkpoint = read(self.ckpt_path)
        saved = checkpoint[RUN]
        shapes = {name: value.shape for name, value in self.model.state_dict().items()}
        require(
            shapes == {name: value.shape for name, value in checkpoint["state_dict"].items()},
            "ckpt_path",
            str(self.ckpt_path),
            "the configuration that the checkpoint was made with: its networks have other shapes",
        )
        capacity = saved["data"]["replay"]["capacity"]
        require(
            self.datamodule.replay_capacity == capacity,
            "data.replay_capacity",
            self.datamodule.replay_capacity,
            f"{capacity}, as in the checkpoint",
        )
        if others := other_settings(saved["identity"], identity):
            print(f"{self.ckpt_path} was made with another {' and '.join(others)}", flush=True)
        self.complete = max_epochs * self.datamodule.steps_per_epoch <= saved["env_step"]
        print(f"going on from {self.ckpt_path}, environment step {saved['env_step']:,}", flush=True)
        return saved["run_id"]


def build(arguments: list[str] | None = None) -> FitCLI:
    """Parse the command line and make trainer, algorithm and data module, checked.

    Args:
        arguments: The command line's; those of the process if None.

    Raises:
        ArgumentError: If an option is unknown or its value has the wrong type.
        ConfigurationError: If a value cannot be used.
    """
    try:
        # In a context of its own: jsonargparse leaves its parser there, with all that was made.
        return copy_context().run(_build, arguments)
    except UnicodeDecodeError as error:  # a group's file, which jsonargparse reads by itself
        raise ConfigurationError("config: no text was given; allowed: YAML in UTF-8") from error


def _build(arguments: list[str] | None) -> FitCLI:
    return FitCLI(
        Agent,
        ReplayData,
        subclass_mode_model=True,
        run=False,
        args=arguments,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        save_config_callback=RecordConfiguration,
        parser_class=Parser,
        parser_kwargs={
            "prog": "fit",  # the alias that a shell completes the options of
            "exit_on_error": False,
            "description": DESCRIPTION,
            "usage": USAGE,
        },
        trainer_defaults={
            "logger": {"class_path": "lit_mbrl.tracking.RunLogger"},
            "profiler": {"class_path": "lit_mbrl.profiling.PhaseProfiler"},
            "callbacks": [Progress()],
            "plugins": [{"class_path": "lit_mbrl.checkpoints.AtomicCheckpointIO"}],
            "devices": 1,
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
        },
    )


def main(arguments: list[str] | None = None, restored: int = 0) -> int:
    """Run the command line; returns the exit status.

    0 is success, 1 a task or a network that failed while training, 2 a configuration that cannot
    be used, and 128 + n the signal n.

    Args:
        arguments: The command line's; those of the process if None.
        restored: How often the run has gone on by itself after a divergence.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    forget_earlier_runs()
    prepare_process()
    if not arguments:
        print(f"error: {NO_ALGORITHM}", file=sys.stderr)
        return 2
    try:
        with Interruption() as interruption:  # before there is a run, which would never end
            cli = build(arguments)
            cli.checkpoint.restored = restored
            if cli.complete:
                print("this run is complete: a larger trainer.max_epochs would take it further")
                terminate(cli, "FINISHED")
                return 0
            cli.checkpoint.interruption = interruption
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.ckpt_path)
    except (ArgumentError, ConfigurationError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    except MlflowException as error:  # metrics can be kept for later, a run has to be begun
        words = "error: trainer.logger: the run could not be begun:"
        print(words, first_line(error), file=sys.stderr)
        return 2
    except Interrupted as error:
        terminate(cli, "KILLED")
        print(error, file=sys.stderr)
        return 128 + error.signum
    except TrainingError as error:
        if error.__cause__ is not None:  # an error in the user's own code
            traceback.print_exception(error.__cause__)
        words = f"{error}; stopped after environment step {cli.model.env_steps:,}"
        usable = cli.checkpoint.saved or cli.ckpt_path is not None
        last = cli.checkpoint.last if cli.checkpoint.saved else cli.ckpt_path
        if usable:
            words = f"{words}, the last checkpoint is {last}"
        again = isinstance(error, DivergenceError) and restored < cli.checkpoint.restores
        if not (usable and again) or interruption.signum is not None:
            print(f"error: {words}", file=sys.stderr)
            return 1
        print(f"{words}: going on from it", file=sys.stderr, flush=True)
    else:
        report(cli.trainer)
        return 0
    finally:
        release()
    del cli
    return main([*arguments, "--ckpt_path", str(last)], restored + 1)


def terminate(cli: FitCLI, status: str) -> None:
    """Tell MLflow how the run ended."""
    for logger in cli.trainer.loggers:
        if isinstance(logger, RunLogger):
            logger.terminate(status)


def report(trainer: Trainer) -> None:
    """The last line: what the run came to and where to look at it."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    evaluated, logger = latest(trainer), run_logger_of(trainer)
    words = [f"{type(trainer.lightning_module).__name__} on {data.env_id}:"]
    if evaluated is not None:
        words.append(
            f"final return {evaluated.return_mean:.1f} ± {evaluated.return_std:.1f} "
            f"at environment step {evaluated.env_step:,}."
        )
    if logger is not None:
        words.append(logger.where)
    print(" ".join(words))


def prepare_process() -> None:
    """What a process is told before it trains: about memory, about numbers, and to keep quiet."""
    keep_freed_memory()
    flush_denormals()
    quieten()


def quieten() -> None:
    """Silence what says nothing about the run."""
    # The loader is sized and in this process on purpose: one batch is one environment step.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Observations are cast to float32 on purpose; infinite bounds lose nothing.
    warnings.filterwarnings("ignore", message=".*Box (low|high)'s precision lowered.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    # Arguments are given to the parser in any case, see `main`.
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
    # A run goes on in mid-epoch from the data module's own state.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    # The older versions of some tasks are those of the papers, see `TASKS`.
    warnings.filterwarnings("ignore", message=".*-v4 is out of date.*")
    # float32 is float32 on a GPU too, so that runs there and on processors can be compared.
    warnings.filterwarnings("ignore", message=".*TensorFloat32 tensor cores.*")
    # Lightning's tips, the first run's notice of its store, and MLflow's database migrations.
    logging.getLogger("pytorch_lightning.loggers.mlflow").setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric.utilities").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It prints the whole of an error that it then raises, see `RunLogger`.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    logging.getLogger("torchrl").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
