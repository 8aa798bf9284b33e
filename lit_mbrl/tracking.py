"""Where runs are recorded, also while the store or server that records them is away."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient, set_tracking_uri
from pytorch_lightning.loggers import MLFlowLogger
from sqlalchemy.exc import SQLAlchemyError

from lit_mbrl.errors import ConfigurationError, first_line

# MLflow's own would hold the training up for minutes each time that a server does not answer.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
# The last line says where to look, see `RunLogger.where`.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

URI = "MLFLOW_TRACKING_URI"
"""Environment variable: the store or server where none is given."""

PATIENCE = 30.0
"""Seconds until a store or server that did not take a metric is asked again."""

REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")
"""MLflow's codes of what it will not take at any other time either."""

FAILURES = (MlflowException, SQLAlchemyError, OSError)
"""What MLflow raises where there is no server, no file system or no room for another row."""


def store_uri(given: str | None) -> str:
    """Where runs are recorded: the address given, MLFLOW_TRACKING_URI, or mlflow.db here."""
    # Absolute: MLflow keeps one store for each address for as long as a process lives.
    default = f"sqlite:///{Path('mlflow.db').absolute()}"
    return given or os.environ.get(URI) or default


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Take back what MLflow writes there: the next run of the process would take it for its own."""
    before = os.environ.get(URI)
    try:
        yield
    finally:
        os.environ.pop(URI, None)
        if before is not None:
            os.environ[URI] = before


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger on a sqlite store in the working directory; no server needed.

    Metrics that the store does not take are kept in `unsent/<run id>.jsonl`, or in memory where the
    disk is full, and sent when it takes them again: later in the run, at its end, or when the run
    goes on.

    Args:
        experiment_name: Experiment that the run belongs to.
        run_name: Name of the run; MLflow invents one if None.
        tracking_uri: Store or server; the environment variable MLFLOW_TRACKING_URI if None, and
            mlflow.db in the working directory if that is not set either.
        run_id: A run to add to, instead of a new one; the store may be away.

    Raises:
        ConfigurationError: If a run is to begin and the store cannot be reached.
    """

    @_environment_kept()
    def __init__(
        self,
        experiment_name: str = "lit_mbrl",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        run_id: str | None = None,
    ):
        uri = store_uri(tracking_uri)
        try:
            if uri.startswith("sqlite:///") and not {"?", ":"} & set(uri[10:]):  # a plain path
                _make_store(Path(uri.removeprefix("sqlite:///")))
            if run_id is not None and not _has(uri, run_id):
                print(f"{uri} does not know run {run_id}, which goes on as a new one", flush=True)
                run_id = None
            super().__init__(experiment_name, run_name, tracking_uri=uri, run_id=run_id)
            self.tracking_uri = uri
            self.goes_on = run_id is not None
            if run_id is not None:
                set_tracking_uri(uri)
                self._initialized = True  # or Lightning would ask for the run, which may be away
                with suppress(*FAILURES):
                    self.experiment.update_run(run_id, status="RUNNING")
                    # MLflow tags new runs with these; one that goes on joins its new parent.
                    context = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT", "{}"))
                    for key, value in context.items():
                        self.experiment.set_tag(run_id, key, value)
            self._unsent = Path("unsent", f"{self.run_id}.jsonl").absolute()
        except FAILURES as error:
            raise ConfigurationError(
                f"trainer.logger.tracking_uri: {uri!r} was given ({error}); "
                "allowed: a store or server that can be reached"
            ) from error
        self._in_memory: list[dict[str, Any]] = []  # unsent too: there was no room in the file
        self._refused: set[str] = set()  # metrics of which a line has told
        self._ask_again = 0.0  # when to send what is unsent

    @property
    def where(self) -> str:
        """How to look at the run, in a sentence."""
        if self.tracking_uri.startswith("http"):
            return f"Look at run {self.run_id}: {self.tracking_uri}/#/runs/{self.run_id}"
        return f"Look at run {self.run_id} with: mlflow ui --backend-store-uri {self.tracking_uri}"

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
        if self._is_behind() and (now < self._ask_again or not self._send_unsent()):
            self._keep(entries)
        elif not self._send(entries):
            _say(f"{self.tracking_uri} does not answer: metrics are kept in {self._unsent}")
            self._keep(entries)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Store a file with the run, under a folder of it; a line says so if that fails."""
        try:
            self.experiment.log_artifact(self.run_id, str(path), folder)
        except FAILURES as error:
            _say(f"{path} was not stored with run {self.run_id} ({first_line(error)})")

    def finalize(self, status: str = "success") -> None:
        """Lightning's hook: send what is unsent, and say how the run ended."""
        self.terminate({"success": "FINISHED", "finished": "FINISHED"}.get(status, "FAILED"))

    def terminate(self, status: str) -> None:
        """Send what is unsent and set MLflow's status of the run: FINISHED, FAILED or KILLED."""
        sent = not self._is_behind() or self._send_unsent()
        try:
            self.experiment.set_terminated(self.run_id, status)
        except FAILURES:
            sent = False
        if self._in_memory:
            self._keep([])
        if self._in_memory:
            _say(f"{len(self._in_memory)} metrics of run {self.run_id} are lost: no room for them")
        elif not sent:
            _say(
                f"{self.tracking_uri} does not answer: what it has missed of run {self.run_id} is "
                "sent by the same command with --ckpt_path last"
            )

    def _is_behind(self) -> bool:
        return bool(self._in_memory) or self._unsent.exists()

    def _send(self, entries: list[dict[str, Any]]) -> bool:
        try:
            for first in range(0, len(entries), 1000):  # as many as MLflow takes at once
                self._log([Metric(**entry) for entry in entries[first : first + 1000]])
        except FAILURES:
            self._ask_again = time.time() + PATIENCE
            return False
        return True

    def _log(self, batch: list[Metric]) -> None:
        """Hand metrics to MLflow; one that it refuses is given up, or all others would wait."""
        try:
            self.experiment.log_batch(self.run_id, metrics=batch)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            if len(batch) > 1:
                for metric in batch:
                    self._log([metric])
            elif batch[0].key not in self._refused:
                self._refused.add(batch[0].key)
                refused = f"{self.tracking_uri} refuses the metric {batch[0].key!r}"
                _say(f"{refused}: {first_line(error)}")

    def _send_unsent(self) -> bool:
        """Whether everything that was kept has been sent; it is then kept no longer."""
        try:
            if not self._send([*_entries(self._unsent), *self._in_memory]):
                return False
            self._unsent.unlink(missing_ok=True)
        except OSError:
            return False
        self._in_memory = []
        return True

    def _keep(self, entries: list[dict[str, Any]]) -> None:
        said = bool(self._in_memory)
        self._in_memory += entries
        try:
            self._unsent.parent.mkdir(exist_ok=True)
            with self._unsent.open("a") as file:
                # Begun on a new line: the one before may have been cut.
                file.writelines("\n" + json.dumps(entry) for entry in self._in_memory)
            self._in_memory = []
        except OSError as error:
            if not said:
                _say(f"{self._unsent} cannot be written ({error.strerror}): kept in memory")


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """The metrics in a file of unsent ones, but those that a full disk or a kill has cut."""
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


def _make_store(path: Path) -> None:
    """Make an MLflow store whole or not at all; nothing is done where there is one.

    MLflow takes seconds for it, and a store that was killed meanwhile can never be opened again.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.", dir=path.parent) as folder:
        part = Path(folder, path.name).absolute()
        MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
        try:
            os.link(part, path)  # unlike a renaming, not over what another process has made
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(part, path)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _has(uri: str, run_id: str) -> bool:
    """Whether a store or server knows a run; one that is away is taken to."""
    try:
        return bool(MlflowClient(uri).get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        return error.error_code != "RESOURCE_DOES_NOT_EXIST"
