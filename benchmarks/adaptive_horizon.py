"""Draws MPDP's adaptive horizon and model error against steps (paper 001, Figures 2 and 3).

    python -m lit_mbrl.fit --config conf/mpdp.yaml --config conf/mpdp/hopper.yaml --model.beta 0.2
    python benchmarks/adaptive_horizon.py --task Hopper-v5

reads the newest run of each beta on the task from MLflow, writes what it logged as
`<results>/mpdp-beta<beta>/<task>/logged-seed<n>.csv`, and draws them. The paper's Figure 2 has one
beta and several thresholds. Its model error is the L2 norm at every 250 steps, which is
`dynamics/prediction_error`: on the steps that the model has not been fitted to yet.
"""

import argparse
from pathlib import Path

import matplotlib
from logged import history, newest_runs, write
from matplotlib.figure import Figure

from lit_mbrl.report.figures import PALETTE, STYLE, as_png
from lit_mbrl.tracking import store_uri
from mlflow import MlflowClient

METRICS = {
    "rollout/adaptive_length": "steps of a plan",
    "dynamics/prediction_error": "L2 error on unseen steps",
}


def main() -> None:
    """Write the tables and the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="Hopper-v5")
    parser.add_argument("--tracking_uri", help="MLflow's store or server, as for training")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/adaptive_horizon.png"))
    given = parser.parse_args()
    client = MlflowClient(store_uri(given.tracking_uri))
    runs = {}
    for run in newest_runs(client, "MPDP", given.task):
        runs.setdefault(float(run.data.params["beta"]), run)
    if not runs:
        parser.error(f"no run of MPDP on {given.task} in {client.tracking_uri}")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 3.2), layout="constrained")
        every = figure.subplots(1, len(METRICS))
        for color, (beta, run) in zip(PALETTE, sorted(runs.items()), strict=False):
            logged = {name: history(client, run.info.run_id, name) for name in METRICS}
            folder = given.results / f"mpdp-beta{beta:g}" / given.task
            write(folder / f"logged-seed{run.data.tags['seed']}.csv", logged)
            for axes, values in zip(every, logged.values(), strict=True):
                axes.plot([*values], [*values.values()], color=color, label=f"β = {beta:g}")
        for axes, label in zip(every, METRICS.values(), strict=True):
            axes.set(xlabel=f"environment steps on {given.task}", ylabel=label)
        every[0].legend(labelcolor="linecolor", handlelength=1.5)
    given.figure.write_bytes(as_png(figure))


if __name__ == "__main__":
    main()
