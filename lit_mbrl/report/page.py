"""The page: figures and tables of each task, in one file that needs no other."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from lit_mbrl.report import figures
from lit_mbrl.report.runs import Run
from lit_mbrl.report.stated import stated_for
from lit_mbrl.report.statistics import (
    LAST,
    RESAMPLES,
    final_return,
    interquartile_mean,
    interval,
    standard_error,
    steps_to,
)

THRESHOLDS = {"Hopper-v5": 1000.0}  # what standing upright for a whole episode returns
"""Thresholds that take the place of gymnasium's own `reward_threshold`."""


class Page:
    """A report of runs in a folder.

    Args:
        folder: To write to.
        runs: In the order in which they are listed.
        thresholds: By task, instead of the defaults.
        source: Where the runs are from, in words.
        command: What makes the same report again.
    """

    def __init__(
        self,
        folder: Path,
        runs: Sequence[Run],
        thresholds: Mapping[str, float],
        source: str,
        command: str,
    ):
        self.folder, self.runs, self.source, self.command = folder, runs, source, command
        self.tasks: dict[str, dict[str, list[Run]]] = {}  # by task and label
        for run in runs:
            self.tasks.setdefault(run.task, {}).setdefault(run.label, []).append(run)
        self.labels = sorted({run.label for run in runs}, key=str.lower)
        self.colors = figures.colors_of(self.labels)
        self.thresholds = {
            task: thresholds.get(task, default_threshold(task)) for task in self.tasks
        }

    def write(self) -> Path:
        """Write index.html and a PNG file of each figure; returns the page's path.

        Raises:
            OSError: If the folder cannot be made or written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"number": number, "step": step, "duration": duration}
        environment.filters["exact"] = figures.exact
        text = environment.get_template("page.html").render(
            page=self,
            tasks=[self._task(task) for task in self.tasks],
            overall=self._overall(),
            last=LAST,
            resamples=RESAMPLES,
        )
        page = self.folder / "index.html"
        page.write_text(text, encoding="utf-8")
        return page

    def _task(self, task: str) -> dict[str, Any]:
        """What the template shows of a task."""
        groups = self.tasks[task]
        runs = [run for label in groups for run in groups[label]]
        threshold, stated = self.thresholds[task], stated_for(task)
        classes = {run.tags["algorithm"] for run in runs}
        ours = [mark for mark in stated if mark.algorithm in classes]
        returns = {label: [final_returns(runs)] for label, runs in groups.items()}
        drawn = {
            "": figures.learning_curves(task, groups, ours, self.colors),
            "-final-return": figures.interquartile_means("Final return", returns, self.colors),
            "-wall-time": figures.wall_times(groups, self.colors),
        }
        if threshold is not None:
            steps = figures.steps_to_threshold(groups, threshold, self.colors)
            drawn["-steps-to-threshold"] = steps
        name = re.sub(r"[^\w.-]", "_", task)
        return {
            "name": task,
            "threshold": threshold,
            "images": {kind: self._image(figure, name + kind) for kind, figure in drawn.items()},
            "groups": [summary(label, runs, threshold) for label, runs in groups.items()],
            "runs": [details(run, threshold) for run in runs],
            "stated": stated,
        }

    def _overall(self) -> dict[str, Any] | None:
        """What the template shows of all tasks together; None where there is nothing to compare.

        Compared are labels with a run on every task, if each task has a positive threshold, by
        which its returns are divided.
        """
        positive = {task: by for task, by in self.thresholds.items() if by is not None and by > 0}
        if len(self.tasks) < 2 or len(positive) < len(self.tasks):
            return None
        scores = {
            label: [
                final_returns(groups.get(label, [])) / positive[task]
                for task, groups in self.tasks.items()
            ]
            for label in self.labels
        }
        scores = {k: strata for k, strata in scores.items() if all(v.size for v in strata)}
        if not scores:
            return None
        drawn = figures.interquartile_means("Score", scores, self.colors)
        return {
            "image": self._image(drawn, "all-tasks"),
            "rows": [
                {
                    "label": label,
                    "runs": sum(values.size for values in strata),
                    "middle": float(interquartile_mean(*strata)),
                    "interval": interval(*strata),
                }
                for label, strata in scores.items()
            ],
        }

    def _image(self, figure: Figure, name: str) -> str:
        """Write a figure's PNG; returns the figure for the page."""
        (self.folder / f"{name}.png").write_bytes(figures.as_png(figure))
        return figures.as_svg_uri(figure)


def default_threshold(task: str) -> float | None:
    """The return whose first reaching is reported, if one is known."""
    spec = gymnasium.registry.get(task)
    return THRESHOLDS.get(task, spec.reward_threshold if spec else None)


def final_returns(runs: Sequence[Run]) -> np.ndarray:
    """[N]: of the runs that have been evaluated."""
    return np.array([final_return(run) for run in runs if len(run.evaluations)])


def summary(label: str, runs: Sequence[Run], threshold: float | None) -> dict[str, Any]:
    """The runs of a label on one task, as a row of the table."""
    returns = final_returns(runs)
    lengths = sorted({run.last_step for run in runs})
    reached = [steps_to(run, threshold) for run in runs] if threshold is not None else []
    return {
        "label": label,
        "runs": len(runs),
        "seeds": len({run.tags["seed"] for run in runs}),
        "mean": float(returns.mean()) if returns.size else math.nan,
        "error": standard_error(returns),
        "middle": float(interquartile_mean(returns)) if returns.size else math.nan,
        "interval": interval(returns),
        "lengths": (lengths[0], lengths[-1]),
        "cut_short": sum(not run.finished for run in runs),
        "reached": sum(math.isfinite(steps) for steps in reached),
        "median_steps": float(np.median(reached)) if reached else math.inf,
        "seconds": sum(run.seconds for run in runs),
    }


def details(run: Run, threshold: float | None) -> dict[str, Any]:
    """A run as a row of the table."""
    commit = run.tags.get("commit", "unknown")
    return {
        "label": run.label,
        "name": run.name,
        "seed": run.tags["seed"],
        "final": final_return(run),
        "best": float(run.returns.max()) if len(run.evaluations) else math.nan,
        "length": run.last_step,
        "steps": steps_to(run, threshold) if threshold is not None else math.inf,
        "seconds": run.seconds,
        "finished": run.finished,
        "commit": commit,
        "short_commit": re.sub(r"^([0-9a-f]{7})[0-9a-f]+", r"\1", commit),
    }


def number(value: float, digits: int = 1) -> str:
    """1,234.5 with a true minus sign; a dash for what is not known."""
    return "\u2013" if math.isnan(value) else f"{value:,.{digits}f}".replace("-", "\u2212")


def step(value: float) -> str:
    """1,234; `not reached` for infinity."""
    return f"{value:,.0f}" if math.isfinite(value) else "not reached"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
