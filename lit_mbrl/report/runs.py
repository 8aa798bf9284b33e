"""Runs and their evaluations, from the files under results/ or from MLflow."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from lit_mbrl.errors import ConfigurationError, require
from lit_mbrl.tracking import FAILURES, store_uri

METRIC, CLOCK = "eval/return_mean", "time/wall_seconds"
VARIANTS = {"bf16-mixed": "-bf16"}
"""What runs of another precision are called, behind their algorithm's name."""

LAYOUT = "<name>/<task>/seed<n>.csv with seed<n>.yaml beside it"


@dataclass
class Run:
    """A run, whose evaluations are read when they are first asked for.

    Attributes:
        label: What it is compared as: its algorithm, or a named variant of it.
        name: What tells it from the other runs with this label and task.
        tags: algorithm (its class), task, seed, commit, and whatever else it was tagged with.
        finished: False if it was cut short, or still runs.
        read: Reads the evaluations.
    """

    label: str
    name: str
    tags: dict[str, str]
    finished: bool
    read: Callable[[], list[tuple[float, float, float]]]

    @property
    def task(self) -> str:
        """The task's id."""
        return self.tags["task"]

    @cached_property
    def evaluations(self) -> np.ndarray:
        """[N, 3]: environment step, mean return, wall-clock seconds since the start."""
        return np.array(self.read(), dtype=float).reshape(-1, 3)

    @property
    def env_steps(self) -> np.ndarray:
        """[N]: the environment steps of the evaluations."""
        return self.evaluations[:, 0]

    @property
    def returns(self) -> np.ndarray:
        """[N]: their mean returns."""
        return self.evaluations[:, 1]

    @property
    def last_step(self) -> int:
        """The environment step of the last evaluation, 0 before the first."""
        return int(self.env_steps[-1]) if len(self.evaluations) else 0

    @property
    def seconds(self) -> float:
        """Wall-clock seconds to the last evaluation, warm-up included."""
        return float(self.evaluations[-1, 2]) if len(self.evaluations) else 0.0


def from_files(folder: Path) -> list[Run]:
    """The runs whose results `lit_mbrl.callbacks.Results` wrote under a folder.

    Args:
        folder: Holds `<name>/<task>/seed<n>.csv`, each with its YAML file.

    Raises:
        ConfigurationError: If there are none, or one does not say what it is of.
    """
    require(folder.is_dir(), "results", str(folder), "a folder that exists")
    paths = sorted(folder.glob("**/seed*.csv"))
    require(bool(paths), "results", str(folder), f"a folder with {LAYOUT}")
    return [_from_file(path) for path in paths]


def _from_file(path: Path) -> Run:
    described = path.with_suffix(".yaml")
    try:
        run = yaml.safe_load(described.read_text())
        configuration = run["configuration"]
        algorithm = configuration["model"]["class_path"].rpartition(".")[2]
        tags = {
            "algorithm": algorithm,
            "task": configuration["data"]["env_id"],
            "seed": str(configuration["seed_everything"]),
            "commit": run["commit"],
            "command": run["command"],
        }
        finished = run["finished"]
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"results: {str(described)!r} cannot be read ({error!r}); allowed: {LAYOUT}"
        ) from error
    folder = path.absolute().parent.parent.name
    if folder.lower().startswith(algorithm.lower()):  # mppve-bf16 is MPPVE-bf16
        folder = algorithm + folder[len(algorithm) :]
    return Run(folder, path.stem, tags, finished, partial(_read_csv, path))


def _read_csv(path: Path) -> list[tuple[float, float, float]]:
    columns = ("env_step", "return_mean", "wall_seconds")
    try:
        with path.open(newline="") as file:
            return [
                (float(row[columns[0]]), float(row[columns[1]]), float(row[columns[2]]))
                for row in csv.DictReader(file)
            ]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"results: {str(path)!r} cannot be read ({error!r}); allowed: a CSV file with numbers "
            f"in the columns {', '.join(columns)}"
        ) from error


def from_mlflow(tracking_uri: str | None) -> list[Run]:
    """The runs of `lit_mbrl.fit` in an MLflow store.

    Args:
        tracking_uri: The store or server; as for training if None.

    Raises:
        ConfigurationError: If it cannot be reached or holds none.
    """
    uri = store_uri(tracking_uri)
    database = uri.removeprefix("sqlite:///")
    # MLflow would make one.
    exists = database == uri or Path(database).exists()
    require(exists, "tracking_uri", uri, "a store that exists; or give --results FOLDER")
    try:
        client = MlflowClient(uri)
        experiments = [e.experiment_id for e in _every(client.search_experiments)]
        found = _every(partial(client.search_runs, experiments))
        runs = [
            Run(
                label=run.data.tags["algorithm"] + VARIANTS.get(run.data.tags.get("precision"), ""),
                name=run.info.run_name or run.info.run_id,
                tags=run.data.tags,
                finished=run.info.status == "FINISHED",
                read=partial(_read_history, client, run),
            )
            for run in found
            if {"algorithm", "task", "seed"} <= run.data.tags.keys()
        ]
    except FAILURES as error:
        raise _unreachable(uri, error) from error
    require(bool(runs), "tracking_uri", uri, "a store with runs of lit_mbrl.fit")
    return runs


def _every(search: Callable[..., Any]) -> Iterator[Any]:
    """All that MLflow finds, which it hands out in pages."""
    page = search()
    yield from page
    while page.token:
        page = search(page_token=page.token)
        yield from page


def _read_history(client: MlflowClient, run: MlflowRun) -> list[tuple[float, float, float]]:
    try:
        returns, seconds = (
            # A step that was repeated after a kill -9 was logged twice, with the same return.
            {entry.step: entry.value for entry in client.get_metric_history(run.info.run_id, name)}
            for name in (METRIC, CLOCK)
        )
    except FAILURES as error:
        raise _unreachable(client.tracking_uri, error) from error
    return [(step, returns[step], seconds[step]) for step in sorted(returns.keys() & seconds)]


def _unreachable(uri: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"tracking_uri: {uri!r} was given ({error}); allowed: a store or server that can be reached"
    )


def pick(
    runs: list[Run],
    algorithms: Sequence[str] = (),
    tasks: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
) -> list[Run]:
    """The runs that match, ordered by task, label, seed and name.

    Patterns are those of a shell (`mppve*`), whatever the case; no pattern takes all. Each has to
    match a run, so that a misspelt one does not go unseen.

    Args:
        runs: What to pick from.
        algorithms: Patterns of labels.
        tasks: Patterns of tasks.
        tags: A pattern for each tag that counts.

    Raises:
        ConfigurationError: If a pattern matches none of the runs that are left.
    """

    filters: list[tuple[str, Sequence[str], Callable[[Run], str]]] = [
        ("algorithms", algorithms, lambda run: run.label),
        ("tasks", tasks, lambda run: run.task),
    ]
    for tag, pattern in (tags or {}).items():
        filters.append((f"tags.{tag}", [pattern], partial(_tag, tag)))
    for option, patterns, value in filters:
        for pattern in patterns:
            found = any(_matches(value(run), pattern) for run in runs)
            require(found, option, pattern, _listed({value(run) for run in runs} - {""}))
        if patterns:
            runs = [run for run in runs if any(_matches(value(run), p) for p in patterns)]

    def order(run: Run) -> tuple[str, str, int, str, str]:
        seed = run.tags["seed"]
        return run.task, run.label.lower(), len(seed), seed, run.name

    return sorted(runs, key=order)


def _matches(value: str, pattern: str) -> bool:
    return fnmatchcase(value.lower(), pattern.lower())


def _tag(tag: str, run: Run) -> str:
    return run.tags.get(tag, "")


def _listed(values: set[str]) -> str:
    known = ", ".join(sorted(values)[:10])
    return f"a pattern that matches some of {known}" if known else "a tag that the runs have"
