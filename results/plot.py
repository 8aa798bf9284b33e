"""Draws the committed curves: `python results/plot.py` writes one figure a task to docs/figures."""

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent
FIGURES = RESULTS.parent / "docs" / "figures"


def curve(path: Path) -> tuple[list[int], list[float]]:
    """Environment steps and mean returns of one seed's evaluations."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return [int(r["env_step"]) for r in rows], [float(r["return_mean"]) for r in rows]


def main() -> None:
    """One figure a task: each seed faint, the mean of the seeds that got that far bold."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    for task in sorted({path.name for path in RESULTS.glob("*/*/")}):
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        for color, folder in enumerate(sorted(RESULTS.glob(f"*/{task}/"))):
            seeds = [curve(path) for path in sorted(folder.glob("seed*.csv"))]
            at_step = defaultdict(list)
            for steps, returns in seeds:
                axes.plot(steps, returns, color=f"C{color}", alpha=0.3, linewidth=1)
                for step, value in zip(steps, returns, strict=True):
                    at_step[step].append(value)
            steps = sorted(at_step)
            mean = [sum(at_step[s]) / len(at_step[s]) for s in steps]
            label = f"{folder.parent.name.upper()}, {len(seeds)} run{'s' if len(seeds) > 1 else ''}"
            axes.plot(steps, mean, color=f"C{color}", linewidth=2, label=label)
        axes.set(title=task, xlabel="environment steps", ylabel="return, mean of ten episodes")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(FIGURES / f"{task}.png", dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main()
