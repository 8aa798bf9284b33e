"""Draws how far LOOP's plans are from its actor, and what it reaches (paper 003, Figure 4).

    python -m lit_mbrl.fit --config conf/loop.yaml --seed_everything 0
    python -m lit_mbrl.fit --config conf/loop_cem.yaml --seed_everything 0
    python benchmarks/actor_divergence.py --task InvertedPendulum-v5

reads the newest run of each planner and seed on the task from MLflow, writes what it logged as
`<results>/<planner's folder>/<task>/logged-seed<n>.csv`, and draws every such file, of earlier runs
too: with ARC, and without it, by CEM.
"""

import argparse
from pathlib import Path

import matplotlib
from logged import history, newest_runs, read, write
from matplotlib.figure import Figure
from mlflow.entities import Run

from lit_mbrl.report.figures import PALETTE, STYLE, as_png
from lit_mbrl.tracking import store_uri
from mlflow import MlflowClient

METRICS = {
    "actor/divergence": "L2 distance of plan and actor",
    "eval/return_mean": "mean return of the evaluation",
}
FOLDERS = {"ARC": "loop", "CEM": "loopcem"}


def main() -> None:
    """Write the tables and the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="InvertedPendulum-v5")
    parser.add_argument("--tracking_uri", help="MLflow's store or server, as for training")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/actor_divergence.png"))
    given = parser.parse_args()
    client = MlflowClient(store_uri(given.tracking_uri))
    runs: dict[str, dict[int, Run]] = {planner: {} for planner in FOLDERS}
    for run in newest_runs(client, "LOOP", given.task):
        planner = run.data.params["planner/class_path"].rpartition(".")[2]
        runs[planner].setdefault(int(run.data.tags["seed"]), run)
    for planner, seeds in runs.items():
        for seed, run in seeds.items():
            logged = {name: history(client, run.info.run_id, name) for name in METRICS}
            write(given.results / FOLDERS[planner] / given.task / f"logged-seed{seed}.csv", logged)
    files = {
        planner: sorted((given.results / folder / given.task).glob("logged-seed*.csv"))
        for planner, folder in FOLDERS.items()
    }
    if not any(files.values()):
        parser.error(f"no run of LOOP on {given.task} in {client.tracking_uri}")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 3.2), layout="constrained")
        every = figure.subplots(1, len(METRICS))
        for color, (planner, seeds) in zip(PALETTE, files.items(), strict=False):
            every[0].plot([], [], color=color, label=f"LOOP, {planner}")
            for logged in map(read, seeds):
                for axes, name in zip(every, METRICS, strict=True):
                    values = logged.get(name, {})
                    axes.plot([*values], [*values.values()], color=color)
        for axes, title in zip(every, METRICS.values(), strict=True):
            lowest = min(0, axes.get_ylim()[0])  # returns may be negative
            axes.set(xlabel=f"environment steps on {given.task}", ylabel=title)
            axes.set_ylim(bottom=lowest)
        every[0].legend(labelcolor="linecolor", handlelength=1.5)
    given.figure.write_bytes(as_png(figure))


if __name__ == "__main__":
    main()
