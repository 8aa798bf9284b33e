"""Where runs are recorded."""

import os
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pytorch_lightning.loggers import MLFlowLogger


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger on a sqlite store in the working directory; no server needed.

    Args:
        experiment_name: Experiment that the run belongs to.
        run_name: Name of the run; MLflow invents one if None.
        tracking_uri: Store or server; the environment variable MLFLOW_TRACKING_URI if None, and
            mlflow.db in the working directory if that is not set either.
        run_id: A run to add to, instead of a new one.
    """

    def __init__(
        self,
        experiment_name: str = "lit_mbrl",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        run_id: str | None = None,
    ):
        # Absolute: MLflow keeps one store for each address for as long as a process lives.
        default = f"sqlite:///{Path('mlflow.db').absolute()}"
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
        if run_id is not None and not _has(uri, run_id):
            print(f"{uri} does not know run {run_id}, which goes on as a new one", flush=True)
            run_id = None
        super().__init__(experiment_name, run_name, tracking_uri=uri, run_id=run_id)
        self.tracking_uri = uri
        self.goes_on = run_id is not None
        if run_id is not None:
            self.experiment.update_run(run_id, status="RUNNING")

    def log_hyperparams(self, params: Any) -> None:
        """Lightning's hook; a run that goes on keeps those it began with, as MLflow demands."""
        if not self.goes_on:
            super().log_hyperparams(params)


def _has(uri: str, run_id: str) -> bool:
    try:
        return bool(MlflowClient(uri).get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:
        return False
