"""The figures: one colour an algorithm, sharp in print and on a screen."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lit_mbrl.report.runs import Run
from lit_mbrl.report.stated import Stated
from lit_mbrl.report.statistics import (
    interquartile_mean,
    interval,
    mean_curve,
    steps_to,
)

PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#888888"),
)
"""Told apart by the colour-blind: Okabe and Ito's without their yellow, too pale for a line; then
three of Tol's."""

INK, FAINT, RULE = "#222222", "#6b6b6b", "#d9d9d9"

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "svg.fonttype": "path",  # the page looks alike whatever fonts there are
    "svg.hashsalt": "lit_mbrl",  # the same file from the same runs
}

CROSS: dict[str, Any] = {"marker": "x", "markersize": 5, "mew": 1.1, "linestyle": "none"}
FAINTLY: dict[str, Any] = {"alpha": 0.35, "linewidth": 0.8}
DOTTED: dict[str, Any] = {"linewidth": 2, "linestyle": (0, (0.6, 1.6)), "zorder": 3}
DOT: dict[str, Any] = {"marker": "o", "markersize": 5, "alpha": 0.5, "mew": 0, "linestyle": "none"}
TRIANGLE: dict[str, Any] = {"marker": ">", "markersize": 6, "mfc": "white", "linestyle": "none"}
BAR: dict[str, Any] = {"marker": "|", "markersize": 16, "mew": 2.5, "linestyle": "none"}

Groups = Mapping[str, Sequence[Run]]
"""Runs by label."""


def colors_of(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each of at most ten labels, which all figures keep to."""
    return dict(zip(labels, PALETTE, strict=False))


def exact(value: float) -> str:
    """1,000,000 or 0.95, with a true minus sign."""
    return f"{value:,.10g}".replace("-", "\u2212")


def as_png(figure: Figure) -> bytes:
    """At 200 dots an inch."""
    return _saved(figure, format="png", dpi=200)


def as_svg_uri(figure: Figure) -> str:
    """A data URI, as which it shares no names with the page's other figures."""
    image = _saved(figure, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(image).decode()


def _saved(figure: Figure, **options: Any) -> bytes:
    file = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, **options)
    return file.getvalue()


def learning_curves(
    task: str, groups: Groups, stated: Sequence[Stated], colors: Mapping[str, str]
) -> Figure:
    """Return against environment steps: every run faint, their mean bold, its error shaded.

    The mean is solid as far as all runs of a label got and dotted where only some did; a run that
    was cut short ends in a cross. What papers state is a dashed line at the return, with a diamond
    at the environment step if that is in sight.

    Args:
        task: Its name.
        groups: Its runs by label.
        stated: What to mark.
        colors: By label.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 3.9), layout="constrained")
        axes = figure.subplots()
        handles = []
        cut_short = partial = False
        for label, runs in groups.items():
            color = colors[label]
            count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
            handles.append(Line2D([], [], color=color, linewidth=2, label=f"{label}, {count}"))
            begun = [run for run in runs if len(run.evaluations)]
            for run in begun:
                point = "." if len(run.evaluations) == 1 else ""  # a line would not show it
                axes.plot(run.env_steps, run.returns, color=color, marker=point, **FAINTLY)
                if not run.finished:
                    axes.plot(run.env_steps[-1], run.returns[-1], color=color, **CROSS)
                    cut_short = True
            if begun:
                curve = mean_curve(begun)
                everyone = curve.runs == len(runs)
                partial |= not everyone.all()
                whole = np.where(everyone, curve.mean, np.nan)
                axes.plot(curve.env_steps, whole, color=color, linewidth=2, zorder=3)
                dotted = ~everyone
                dotted[1:] |= ~everyone[:-1]  # up to the solid line
                dotted[:-1] |= ~everyone[1:]
                rest = np.where(dotted, curve.mean, np.nan)
                axes.plot(curve.env_steps, rest, color=color, **DOTTED)
                band = curve.mean - curve.error, curve.mean + curve.error
                axes.fill_between(curve.env_steps, *band, color=color, alpha=0.15, linewidth=0)
        _mark_stated(axes, stated)
        axes.set(xlabel="environment steps", ylabel=f"return on {task}")
        _begin_at_zero(axes)
        if axes.dataLim.y0 >= 0:
            axes.set_ylim(bottom=0)
        _tick(axes.xaxis, 6)
        _tick(axes.yaxis, 6)
        if partial:
            handles.append(Line2D([], [], color=FAINT, label="not all runs got there", **DOTTED))
        if cut_short:
            handles.append(Line2D([], [], color=FAINT, label="cut short", **CROSS))
        figure.legend(
            handles=handles, loc="outside right upper", labelcolor="linecolor", handlelength=1.5
        )
    return figure


def _mark_stated(axes: Axes, stated: Sequence[Stated]) -> None:
    right = axes.dataLim.x1
    for level in sorted({mark.mean_return for mark in stated}):
        marks = [mark for mark in stated if mark.mean_return == level]
        words = ", ".join(
            f"{mark.algorithm} at {mark.env_steps:,} steps" if mark.env_steps else mark.algorithm
            for mark in marks
        )
        axes.axhline(level, color=FAINT, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
        axes.annotate(
            f"stated: about {exact(level)} by {words}",
            (0, level),  # on the left, where curves are low
            xycoords=("axes fraction", "data"),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=8,
            color=FAINT,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=5,
        )
        for mark in marks:
            if mark.env_steps and mark.env_steps <= right:
                axes.plot(mark.env_steps, level, "D", color=FAINT, markersize=5, zorder=5)


def interquartile_means(
    title: str, strata: Mapping[str, Sequence[np.ndarray]], colors: Mapping[str, str]
) -> Figure:
    """Values of the runs as dots, their interquartile mean and its 95% interval.

    Args:
        title: What the values are.
        strata: For each label the values of its runs, an array [N_i] for each task.
        colors: By label.
    """
    figure, axes = _rows(list(strata), colors, title)
    for row, (label, values) in enumerate(strata.items()):
        _dots(axes, row, np.concatenate(values), colors[label])
        if sum(value.size for value in values):
            if ends := interval(*values):
                axes.plot(ends, (row, row), color=colors[label], linewidth=1.5)
            axes.plot(interquartile_mean(*values), row, color=colors[label], **BAR)
    _begin_at_zero(axes)
    return figure


def steps_to_threshold(groups: Groups, threshold: float, colors: Mapping[str, str]) -> Figure:
    """When each run reached a return; an open triangle is as far as one got that did not.

    Args:
        groups: Runs of one task by label.
        threshold: The return.
        colors: By label.
    """
    everyone = [run for runs in groups.values() for run in runs]
    missing = any(math.isinf(steps_to(run, threshold)) for run in everyone)
    title = f"Environment steps to {exact(threshold)}"
    figure, axes = _rows(list(groups), colors, title + " (\u25b7 not reached)" * missing)
    for row, (label, runs) in enumerate(groups.items()):
        steps = np.array([steps_to(run, threshold) for run in runs])
        far = np.array([run.last_step for run in runs])
        missed, places = np.isinf(steps), _places(row, len(runs))
        axes.plot(steps[~missed], places[~missed], color=colors[label], **DOT)
        axes.plot(far[missed], places[missed], color=colors[label], **TRIANGLE)
    _begin_at_zero(axes)
    return figure


def wall_times(groups: Groups, colors: Mapping[str, str]) -> Figure:
    """Minutes of each run for a thousand environment steps, and their mean.

    Args:
        groups: Runs of one task by label.
        colors: By label.
    """
    figure, axes = _rows(list(groups), colors, "Minutes per 1,000 environment steps")
    for row, (label, runs) in enumerate(groups.items()):
        values = np.array(
            [1000 * run.seconds / run.last_step / 60 for run in runs if run.last_step]
        )
        _dots(axes, row, values, colors[label])
        if values.size:
            axes.plot(values.mean(), row, color=colors[label], **BAR)
    _begin_at_zero(axes)
    return figure


def _rows(labels: Sequence[str], colors: Mapping[str, str], title: str) -> tuple[Figure, Axes]:
    """An empty figure with a row for each label, the first on top."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2, 0.9 + 0.34 * len(labels)), layout="constrained")
        axes = figure.subplots()
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        axes.set_yticks(range(len(labels)), labels)
        for tick, label in zip(axes.get_yticklabels(), labels, strict=True):
            tick.set_color(colors[label])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        _tick(axes.xaxis, 4)
    return figure, axes


def _places(row: int, count: int) -> np.ndarray:
    """Heights [count] within a row, so that equal values are seen side by side."""
    return row + np.linspace(-0.25, 0.25, count + 2)[1:-1]


def _dots(axes: Axes, row: int, values: np.ndarray, color: str) -> None:
    axes.plot(values, _places(row, values.size), color=color, **DOT)


def _begin_at_zero(axes: Axes) -> None:
    """Show the whole distance from zero, of what is not negative."""
    if axes.dataLim.x0 >= 0:
        axes.set_xlim(left=0)


def _tick(axis: XAxis | YAxis, intervals: int) -> None:
    axis.set_major_locator(MaxNLocator(intervals, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: exact(value)))
