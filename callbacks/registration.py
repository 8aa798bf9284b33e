"""What becomes of the trained policy."""

import re
import sys

from pytorch_lightning import Callback, LightningModule, Trainer

from lit_mbrl.envs import make_gym_env
from lit_mbrl.errors import first_line
from lit_mbrl.policy import Policy
from lit_mbrl.registry import register

from .trainer import data_of, env_steps, run_logger_of


class Registration(Callback):
    """Registers the policy as an MLflow model at the end of a run, in about a second.

    Its name is the algorithm's and the task's, such as MPPVE-Hopper-v5; every run adds a version.

    Args:
        enabled: Whether to register it.
    """

    def __init__(self, enabled: bool = True):
        self.enabled = enabled

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Register it and say where it is; what fails here does not fail the run."""
        logger = run_logger_of(trainer)
        # What acts by planning has no policy that could be stored without its model.
        if not self.enabled or logger is None or not hasattr(pl_module, "actor"):
            return
        data, algorithm = data_of(trainer), type(pl_module).__name__
        task = re.sub(r"[^\w-]", "-", data.env_id.rpartition(":")[2])  # what MLflow allows
        try:
            policy = Policy(pl_module, make_gym_env(data.env_id, data.env_kwargs))
            run, name = str(logger.run_id), f"{algorithm}-{task}"
            address = register(logger.experiment, run, name, policy, env_steps(trainer))
        except Exception as error:  # it has been learned, and is in the checkpoints
            print("the policy was not registered with MLflow:", first_line(error), file=sys.stderr)
        else:
            print(f"the policy: mlflow.pyfunc.load_model({address!r}).predict(observations)")
