"""Measures how MPPVE's cost grows with D_env and with the length of its rollouts.

    python benchmarks/growth.py --json results/benchmarks/growth.json

One run on Hopper-v5, compiled, is stopped after some environment steps. Then D_env is given 10^4,
10^5 and 10^6 transitions (its own, over and over), and D_model as many windows as rollouts of 1 to
25 steps leave there. For each: the time to draw the batches of a step, the time of a step's
updates, the environment steps a second that come of these, of acting and of imagination's share,
and the buffer's memory. Fits are not part of it: the time of an epoch is given, of which a fit
takes five to ten and more.
"""

import lit_mbrl  # isort: skip  # noqa: F401  # before torch, see lit_mbrl.mkl

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import matplotlib
import torch
from lit_mbrl.callbacks import Retraining
from lit_mbrl.callbacks.trainer import data_of
from matplotlib.figure import Figure
from phases import AT_STEP, machine, run, seconds
from pytorch_lightning import Callback, LightningModule, Trainer
from tensordict import TensorDict

from lit_mbrl.data import EnvironmentReplay
from lit_mbrl.dynamics import fit
from lit_mbrl.fit import prepare_process
from lit_mbrl.report.figures import PALETTE, STYLE, as_png

TASK = "Hopper-v5"


class Growth(Callback):
    """Takes all measurements at the end of step `AT_STEP`."""

    def __init__(self, transitions: list[int], lengths: list[int], least: float) -> None:
        self.least = least
        self.transitions: dict[int, dict[str, float]] = {number: {} for number in transitions}
        self.lengths: dict[int, dict[str, float]] = {length: {} for length in lengths}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        agent: Any = pl_module
        if agent.env_steps != AT_STEP:
            return
        data, retraining = data_of(trainer), retraining_of(trainer)
        autocast = agent.autocast
        frames = iter(data._collector)  # type: ignore[arg-type]
        acting = seconds(lambda: next(frames), self.least)

        def update() -> None:
            with autocast():
                agent.training_step(batch, 0)

        def step(imagining: float) -> dict[str, float]:
            drawing, updating = seconds(data.draw, self.least), seconds(update, self.least)
            return {
                "milliseconds_to_draw": 1e3 * drawing,
                "milliseconds_to_update": 1e3 * updating,
                "steps_per_second": 1 / (acting + drawing + updating + imagining),
            }

        for length in self.lengths:
            agent.rollout_length = length
            with autocast():
                windows = agent.imagine(data.replay, 10_000)
                taken = seconds(lambda: agent.imagine(data.replay, 10_000), self.least)
            kept = retraining.rollouts * retraining.retain_steps // retraining.every
            data.imagined.resize(kept * length)
            while len(data.imagined) < data.imagined.capacity:
                data.imagined.extend(windows)
            batch = data.draw()
            imagining = taken * retraining.rollouts / 10_000 / retraining.every
            self.lengths[length] = {
                **step(imagining),
                "windows": len(data.imagined),
                "milliseconds_to_imagine": 1e3 * imagining,
                "megabytes": data.imagined.snapshot()["rows"].nbytes / 1e6,
            }
        shortest, imagined = next(iter(self.lengths.items()))
        data.imagined.resize(kept * shortest)
        batch = data.draw()
        epoch(agent, data.replay.transitions(), autocast)  # compiles
        for number in self.transitions:
            data.replay = grown(data.replay, number)
            transitions = data.replay.transitions()
            self.transitions[number] = {
                **step(imagined["milliseconds_to_imagine"] / 1e3),
                "seconds_of_an_epoch": epoch(agent, transitions, autocast),
                "megabytes": data.replay.snapshot()["rows"].nbytes / 1e6,
            }


def retraining_of(trainer: Trainer) -> Retraining:
    """The callback that retrains."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next(callback for callback in callbacks if isinstance(callback, Retraining))


def grown(replay: EnvironmentReplay, number: int) -> EnvironmentReplay:
    """A buffer of `number` transitions: those of `replay`, over and over."""
    larger = EnvironmentReplay(number, replay.plan_length, replay.device)
    kept = replay.snapshot()
    steps = torch.arange(number) % replay.steps
    starts = {}
    for name in ("starts", "full_starts"):
        is_start = torch.zeros(replay.steps, dtype=torch.bool)
        is_start[kept[name]["values"]] = True
        starts[name] = {"values": is_start[steps].nonzero().squeeze(1), "first": 0, "skipped": 0}
    counts = {"steps": number, "pending": number}
    larger.restore({**kept, **counts, **starts, "rows": kept["rows"][steps]})
    return larger


def epoch(agent: Any, transitions: TensorDict, autocast: Callable[[], Any]) -> float:
    """Seconds of one epoch of a fit: nothing counts as an improvement by more than the whole."""
    began = time.perf_counter()
    with autocast():
        report = fit(
            agent.dynamics,
            agent.optimizer("dynamics"),
            transitions,
            patience=1,
            min_improvement=1.0,
        )
    return (time.perf_counter() - began) / report.epochs


def table(head: str, rows: dict[int, dict[str, float]]) -> None:
    """Print the rows, a column for each thing measured."""
    names = [name.replace("_", " ") for name in next(iter(rows.values()))]
    print("| " + " | ".join([head, *names]) + " |\n|" + "---|" * (len(names) + 1))
    for size, row in rows.items():
        print("| " + " | ".join([f"{size:,}", *(f"{value:,.4g}" for value in row.values())]) + " |")


def draw(growth: Growth) -> Figure:
    """Environment steps a second and memory against both sizes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 5.5), layout="constrained")
        panels = figure.subplots(2, 2, sharey="row")
        sizes = {"transitions in D_env": growth.transitions, "steps of a rollout": growth.lengths}
        for (above, below), (label, rows) in zip(panels.T, sizes.items(), strict=True):
            for axes, name in ((above, "steps_per_second"), (below, "megabytes")):
                values = [row[name] for row in rows.values()]
                axes.plot([*rows], values, color=PALETTE[0], marker="o", clip_on=False)
            below.set_xlabel(label)
        for axes in panels[:, 0]:
            axes.set_xscale("log")
            axes.set_ylim(bottom=0)
        panels[0, 0].set_ylabel("steps a second, without fits")
        panels[1, 0].set_ylabel("memory of the buffer, MB")
        return figure


def main() -> int:
    """Measure, print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--transitions", nargs="+", type=int, default=[10**4, 10**5, 10**6])
    parser.add_argument("--lengths", nargs="+", type=int, default=[1, 5, 10, 15, 20, 25])
    parser.add_argument("--least", type=float, default=2.0, help="seconds that is timed for")
    parser.add_argument("--json", type=Path, help="write what was found there")
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/growth.png"))
    given, options = parser.parse_known_args()
    figure, found = given.figure.absolute(), given.json and given.json.absolute()
    prepare_process()
    growth = Growth(given.transitions, given.lengths, given.least)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        run(TASK, AT_STEP, growth, ["--model.fit_patience", "1", *options])
    table("transitions in D_env", growth.transitions)
    table("steps of a rollout", growth.lengths)
    figure.write_bytes(as_png(draw(growth)))
    if found:
        measured = {"transitions": growth.transitions, "lengths": growth.lengths}
        found.write_text(
            json.dumps({"machine": machine(torch.device("cpu")), **measured}, indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
