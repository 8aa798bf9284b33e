"""The diagnosis of a dynamics model on one page."""

import math
from json import dumps
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)
from torch import Tensor

from lit_mbrl.diagnosis import LEVELS, Diagnosis, calibration_error
from lit_mbrl.report.figures import FAINT, INK, PALETTE, STYLE, as_png

BLUE, ORANGE = PALETTE[:2]

MOSAIC: list[Any] = [
    ["one_step"] * 6,
    ["calibration"] * 3 + ["disagreement"] * 3,
    *[["rollouts"] * 3 + [f"episode_{place}"] * 3 for place in range(3)],
]

RATIOS = [1.0, 1.5, *[0.5] * 3]


def write_diagnosis(found: Diagnosis, title: str, folder: Path) -> None:
    """Write `diagnosis.png` and `diagnosis.json` into a folder, which is made.

    Args:
        found: What is drawn and written.
        title: What the model is.
        folder: Where.

    Raises:
        OSError: If it cannot be written.
    """
    image = as_png(diagnosis_page(found, title))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "diagnosis.png").write_bytes(image)
    (folder / "diagnosis.json").write_text(dumps(found.numbers(), indent=1) + "\n")


def diagnosis_page(found: Diagnosis, title: str) -> Figure:
    """Five figures: errors by output, calibration, disagreement, rollouts, and an episode.

    Args:
        found: What is drawn.
        title: What the model is.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 8.6), layout="constrained")
        axes = figure.subplot_mosaic(MOSAIC, height_ratios=RATIOS)
        figure.suptitle(
            f"{title}: the model on {found.transitions:,} held-out transitions", fontsize=10
        )
        _one_step(axes["one_step"], found)
        _calibration(axes["calibration"], found)
        _disagreement(axes["disagreement"], found)
        _rollouts(axes["rollouts"], found)
        episode = [axes[name] for row in MOSAIC[2:] for name in row[-1:]]
        _episode(episode, found)
        figure.align_ylabels(episode)
    return figure


def _one_step(axes: Axes, found: Diagnosis) -> None:
    outputs = np.arange(len(found.error))
    for error in found.elite_error:
        axes.plot(outputs, error, "o", color=BLUE, markersize=3.5, alpha=0.4, mew=0)
    axes.plot([], [], "o", color=BLUE, markersize=3.5, alpha=0.4, mew=0, label="each elite")
    axes.plot(outputs, found.error, "_", color=INK, markersize=11, mew=1.8, label="their mean")
    axes.axhline(1, color=FAINT, linewidth=0.9, linestyle=(0, (5, 3)))
    axes.annotate(
        "no better than a constant",
        (1, 1),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=FAINT,
    )
    every = math.ceil(len(outputs) / 24)
    ticks = [*outputs[:-1:every], outputs[-1]]
    axes.set_xticks(ticks, [*(rf"$\Delta s_{{{i}}}$" for i in ticks[:-1]), "$r$"])
    axes.set(xlim=(-0.6, outputs[-1] + 0.6), yscale="log")
    axes.set(ylim=(axes.get_ylim()[0] / 1.5, max(axes.get_ylim()[1], 2)))
    _label_logarithms(axes.yaxis, 1, 3)
    axes.grid(visible=False, axis="x")
    _title(axes, "a", "One-step error, in deviations of the output")
    axes.legend(loc="lower left", bbox_to_anchor=(0.62, 1.0), ncols=2, borderpad=0)


def _calibration(axes: Axes, found: Diagnosis) -> None:
    ends = np.array([0.0, *LEVELS, 1.0])
    for color, words, covered in (
        (ORANGE, "as predicted", found.coverage),
        (BLUE, "recalibrated", found.recalibrated_coverage),
    ):
        whole = np.pad(covered.numpy(), ((1, 1), (0, 0)), constant_values=((0, 1), (0, 0)))
        axes.plot(ends, whole, color=color, linewidth=0.6, alpha=0.35)
        label = f"{words}, error {calibration_error(covered):.3f}"
        axes.plot(ends, whole.mean(1), color=color, linewidth=2, label=label)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set(xlabel="level of the predicted interval", ylabel="outputs that lie in it")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="lower right", labelcolor="linecolor", handlelength=1.2)
    _title(axes, "b", "Calibration, each output faint")


def _disagreement(axes: Axes, found: Diagnosis) -> None:
    x, y = found.disagreement.numpy(), found.distance.numpy()
    shown = (x > 0) & (y > 0) & np.isfinite(x) & np.isfinite(y)
    x, y = x[shown], y[shown]
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        _label_logarithms(axis, 1, 2, 5)
    axes.plot(x, y, ".", color=BLUE, markersize=2.5, alpha=0.25, mew=0, rasterized=True)
    if len(x):
        tenths = np.array_split(np.argsort(x), 10)
        medians = [(np.median(x[rows]), np.median(y[rows])) for rows in tenths if len(rows)]
        axes.plot(*zip(*medians, strict=True), "o-", color=INK, markersize=4, linewidth=1.5)
    axes.set(xlabel="disagreement of the elites", ylabel="error of their mean")
    _title(axes, "c", f"Disagreement and error, rank correlation {found.rank_correlation:.2f}")


def _rollouts(axes: Axes, found: Diagnosis) -> None:
    lower, median, upper = (quartile.numpy() for quartile in found.rollout_error)
    steps = np.arange(1, len(median) + 1)
    axes.fill_between(steps, lower, upper, color=BLUE, alpha=0.18, linewidth=0)
    axes.plot(steps, median, "o-", color=BLUE, linewidth=2, markersize=4)
    axes.set(xlabel="imagined steps", ylim=(0, None))
    axes.set(ylabel="error, in deviations of the observation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _title(axes, "d", "Rollouts with the real actions: median, quartiles")


def _episode(axes: list[Axes], found: Diagnosis) -> None:
    best_to_worst = found.error[:-1].argsort()
    places = np.linspace(0, len(best_to_worst) - 1, len(axes)).round().astype(int)
    words = "best", "middle", "worst"
    for panel, part, word in zip(axes, best_to_worst[places].tolist(), words, strict=True):
        real = found.real[:, part].numpy()
        for imagined in found.imagined[:, :, part]:
            panel.plot(imagined, color=ORANGE, linewidth=0.7, alpha=0.45)
        panel.plot(real, color=INK, linewidth=1.6)
        low, high = _sight(real, found.imagined[:, :, part])
        panel.set(ylim=(low, high), ylabel=f"$s_{{{part}}}$\n{word}", xlim=(0, len(real) - 1))
        panel.yaxis.set_major_locator(MaxNLocator(3))
        panel.tick_params(labelbottom=panel is axes[-1])
    axes[-1].set_xlabel("steps")
    axes[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[0].plot([], [], color=INK, linewidth=1.6, label="real")
    axes[0].plot([], [], color=ORANGE, linewidth=1.2, label="imagined")
    axes[0].legend(
        loc="lower right",
        bbox_to_anchor=(1.02, 0.98),
        ncols=2,
        labelcolor="linecolor",
        handlelength=1,
        borderpad=0,
        columnspacing=1,
    )
    _title(axes[0], "e", "An episode")


def _sight(real: np.ndarray, imagined: Tensor) -> tuple[float, float]:
    """Limits that show all that is real, and of what is imagined that far again to either side."""
    width = max(np.ptp(real), 1e-6)
    drawn = imagined.nan_to_num(nan=float(real[0])).numpy()
    low = max(drawn.min(), real.min() - width)
    high = min(drawn.max(), real.max() + width)
    low, high = min(low, real.min()), max(high, real.max())
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _label_logarithms(axis: Axis, *mantissas: int) -> None:
    axis.set_major_locator(LogLocator(subs=mantissas, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _title(axes: Axes, letter: str, words: str) -> None:
    axes.set_title(words, loc="left", fontsize=9)
    axes.annotate(
        letter,
        (0, 1),
        xycoords="axes fraction",
        xytext=(-18, 6),
        textcoords="offset points",
        fontweight="bold",
        fontsize=10,
        ha="right",
    )
