"""Where runs are recorded."""

import os
from pathlib import Path

from pytorch_lightning.loggers import MLFlowLogger


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger on a sqlite store in the working directory; no server needed.

    Args:
        experiment_name: Experiment that the run belongs to.
        run_name: Name of the run; MLflow invents one if None.
        tracking_uri: Store or server; the environment variable MLFLOW_TRACKING_URI if None, and
            mlflow.db in the working directory if that is not set either.
    """

    def __init__(
        self,
        experiment_name: str = "lit_mbrl",
        run_name: str | None = None,
        tracking_uri: str | None = None,
    ):
        # Absolute: MLflow keeps one store for each address for as long as a process lives.
        default = f"sqlite:///{Path('mlflow.db').absolute()}"
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
        super().__init__(experiment_name, run_name, tracking_uri=uri)
        self.tracking_uri = uri
