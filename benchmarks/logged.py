"""What runs have logged to MLflow: found, read and kept as tables, for figures of a paper."""

import csv
from pathlib import Path

from mlflow.entities import Run

from mlflow import MlflowClient


def newest_runs(client: MlflowClient, algorithm: str, task: str) -> list[Run]:
    """All runs of an algorithm on a task, the newest first."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    chosen = f"tags.algorithm = '{algorithm}' and tags.task = '{task}'"
    return list(client.search_runs(experiments, chosen, order_by=["start_time DESC"]))


def history(client: MlflowClient, run_id: str, metric: str) -> dict[int, float]:
    """What a run logged of a metric, by environment step."""
    entries = client.get_metric_history(run_id, metric)
    return {entry.step: entry.value for entry in sorted(entries, key=lambda entry: entry.step)}


def write(path: Path, logged: dict[str, dict[int, float]]) -> None:
    """A row for each value that was logged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["metric", "env_step", "value"])
        for name, values in logged.items():
            rows.writerows([name, *entry] for entry in values.items())


def read(path: Path) -> dict[str, dict[int, float]]:
    """What `write` has written."""
    logged: dict[str, dict[int, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            logged.setdefault(row["metric"], {})[int(row["env_step"])] = float(row["value"])
    return logged
