"""What the soak's samples come to: the growth of memory, and a figure."""

import csv
from pathlib import Path

import matplotlib
import numpy as np
from soak_faults import MIB

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read_samples(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([int(row[name]) for row in rows]) for name in rows[0]}


def growth(samples: dict[str, np.ndarray]) -> float:
    """MiB by which memory less buffers grew from the second fifth of the time to the last."""
    rest = (samples["resident"] - samples["buffers"]) / MIB
    fifth = len(rest) // 5
    return float(np.median(rest[-fifth:]) - np.median(rest[fifth : 2 * fifth]))


def draw(folder: Path, figure: Path) -> None:
    """Memory against time, from zero and close up, with steps and faults below."""
    samples = read_samples(folder / "samples.csv")
    with (folder / "faults.csv").open() as file:
        faults = [(int(row["seconds"]) / 60, row["fault"]) for row in csv.DictReader(file)]
    minutes = samples["seconds"] / 60
    resident, buffers = samples["resident"] / MIB, samples["buffers"] / MIB
    made, axes = plt.subplots(
        4, 1, figsize=(8, 10), sharex=True, layout="constrained", height_ratios=[3, 2, 2, 3]
    )
    axes[0].plot(minutes, resident, label="resident memory of the process")
    axes[0].plot(minutes, buffers, label="rows of the replay buffers")
    axes[0].set(ylabel="MiB", ylim=(0, None), title=f"{len(faults)} faults in one process")
    axes[0].legend()
    rest = resident - buffers
    middle = [np.median(rest[max(0, second - 30) : second + 31]) for second in range(len(rest))]
    axes[1].plot(minutes, rest, color="C2", alpha=0.4, linewidth=0.8)
    axes[1].plot(minutes, middle, color="C2", label="median of a minute")
    axes[1].set(ylabel="resident less rows, MiB")
    axes[1].legend()
    axes[2].plot(minutes, samples["env_step"], color="C3")
    axes[2].set(ylabel="environment step")
    threads = axes[2].twinx()
    threads.plot(minutes, samples["threads"], color="C7", linewidth=0.8)
    threads.set(ylabel="threads (grey)", ylim=(0, None))
    kinds = sorted({fault for _, fault in faults}, reverse=True)
    axes[3].plot(*zip(*[(at, kinds.index(fault)) for at, fault in faults], strict=True), "k|")
    axes[3].set(yticks=range(len(kinds)), yticklabels=kinds, xlabel="minutes")
    for panel in axes:
        panel.grid(alpha=0.3)
    figure.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(figure, dpi=120)
