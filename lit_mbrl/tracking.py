"""Where runs are recorded, also while the server that records them is away."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pytorch_lightning.loggers import MLFlowLogger

from lit_mbrl.errors import ConfigurationError

# MLflow's own would hold the training up for minutes each time that a server does not answer.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

PATIENCE = 30.0
"""Seconds until a server that was away is asked again."""


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger on a sqlite store in the working directory; no server needed.

    Metrics that the store does not take are kept in `unsent/<run id>.jsonl` and sent when it is
    there again: later in the run, at its end, or when the run goes on.

    Args:
        experiment_name: Experiment that the run belongs to.
        run_name: Name of the run; MLflow invents one if None.
        tracking_uri: Store or server; the environment variable MLFLOW_TRACKING_URI if None, and
            mlflow.db in the working directory if that is not set either.
        run_id: A run to add to, instead of a new one.

    Raises:
        ConfigurationError: If the store cannot be reached.
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
        try:
            if run_id is not None and not _has(uri, run_id):
                print(f"{uri} does not know run {run_id}, which goes on as a new one", flush=True)
                run_id = None
            super().__init__(experiment_name, run_name, tracking_uri=uri, run_id=run_id)
            self.tracking_uri = uri
            self.goes_on = run_id is not None
            if run_id is not None:
                self.experiment.update_run(run_id, status="RUNNING")
            self._unsent = Path("unsent", f"{self.run_id}.jsonl").absolute()
        except (MlflowException, OSError) as error:
            raise ConfigurationError(
                f"trainer.logger.tracking_uri: {uri!r} was given ({error}); "
                "allowed: a store or server that can be reached"
            ) from error
        self._ask_again = 0.0  # when to send what is unsent

    def log_hyperparams(self, params: Any) -> None:
        """Lightning's hook; a run that goes on keeps those it began with, as MLflow demands."""
        if not self.goes_on:
            super().log_hyperparams(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Lightning's hook: send, or keep."""
        now = time.time()
        entries = [
            {"key": key, "value": float(value), "timestamp": int(1000 * now), "step": step or 0}
            for key, value in metrics.items()
        ]
        if self._unsent.exists() and (now < self._ask_again or not self._send_unsent()):
            self._keep(entries)
        elif not self._send(entries):
            self._keep(entries)
            print(
                f"{self.tracking_uri} does not answer: metrics are kept in {self._unsent}",
                file=sys.stderr,
                flush=True,
            )

    def finalize(self, status: str = "success") -> None:
        """Lightning's hook: send what is unsent, and say how the run ended."""
        self.terminate({"success": "FINISHED", "finished": "FINISHED"}.get(status, "FAILED"))

    def terminate(self, status: str) -> None:
        """Send what is unsent and set MLflow's status of the run: FINISHED, FAILED or KILLED."""
        sent = not self._unsent.exists() or self._send_unsent()
        try:
            self.experiment.set_terminated(self.run_id, status)
        except (MlflowException, OSError):
            sent = False
        if not sent:
            print(
                f"{self.tracking_uri} does not answer: what it has missed of run {self.run_id} is "
                "sent by the same command with --ckpt_path last",
                file=sys.stderr,
                flush=True,
            )

    def _send(self, entries: list[dict[str, Any]]) -> bool:
        assert self.run_id is not None
        try:
            for first in range(0, len(entries), 1000):  # as many as MLflow takes at once
                batch = [Metric(**entry) for entry in entries[first : first + 1000]]
                self.experiment.log_batch(self.run_id, metrics=batch)
        except (MlflowException, OSError):
            self._ask_again = time.time() + PATIENCE
            return False
        return True

    def _send_unsent(self) -> bool:
        """Whether everything that was kept has been sent; it is then deleted."""
        lines = self._unsent.read_text().splitlines()
        whole = [line for line in lines if line.endswith("}")]  # the last may have been cut
        if not self._send([json.loads(line) for line in whole]):
            return False
        self._unsent.unlink()
        return True

    def _keep(self, entries: list[dict[str, Any]]) -> None:
        self._unsent.parent.mkdir(exist_ok=True)
        with self._unsent.open("a") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)


def _has(uri: str, run_id: str) -> bool:
    try:
        return bool(MlflowClient(uri).get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
