"""Trains for half an hour under every fault but kill, drawn at random, and looks for what is lost.

    python tests/soak.py --minutes 30

One process calls the command line's `main` with `--ckpt_path last` again and again; a real MLflow
server, on loopback, records the run. Faults come at random environment steps, some end the call and
some pass after a while. Fails unless every call ends as it should, in the end the environment steps
are the transitions stored and MLflow's last step, every metric is there for every step, and the
memory has grown by no more than the replay buffers. Writes `samples.csv`, a row a second, and
`faults.csv` to results/soak, and draws docs/figures/soak.png.

The working directory is a file system of its own, so that it can be full; without the right to
mount one, this fault is left out.
"""

import lit_mbrl  # isort: skip  # before torch, see lit_mbrl.mkl

import argparse
import contextlib
import csv
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from mlflow_server import Server
from soak_faults import CHECKPOINT, ENDING, EVALUATION, Soak, patch
from soak_figure import draw, growth, read_samples
from tiny import CONF, EVERY_EVALUATION, EVERY_STEP, TINY, TINY_MODEL, only_run, options

import lit_mbrl.tracking
from lit_mbrl.checkpoints import RUN, read
from lit_mbrl.fit import main

ROOT = Path(__file__).parents[1]
MARGIN = 16  # MiB
EPOCH = FIT = EVALUATION
VALUES: dict[str, Any] = {
    **TINY,
    **TINY_MODEL,
    "data.env_id": "Hopper-v5",
    "data.steps_per_epoch": EPOCH,
    "data.replay_capacity": 200_000,
    "trainer.max_epochs": 1_000_000,
    "trainer.log_every_n_steps": 1,
    "retraining.every": FIT,
    "retraining.retain_steps": 2 * FIT,
    "retraining.rollouts": 20_000,
    "rollout_length.end": 1,
    "evaluation.every": EVALUATION,
    "evaluation.time_limit": 3,
    "checkpoint.every": CHECKPOINT,
    "checkpoint.restores": 1_000_000,
    # Torch keeps some 0.8 MiB of each run that compiles, behind which other growth would hide.
    "compilation.after": "null",
    "ckpt_path": "last",
}


def sample(soak: Soak, path: Path) -> None:
    """Write a row a second to the end; seconds in which this process was stopped do not count."""
    page = os.sysconf("SC_PAGE_SIZE")
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["seconds", "env_step", "resident", "buffers", "threads", "files"])
        while not soak.ended:
            resident = page * int(Path("/proc/self/statm").read_text().split()[1])
            files = len(os.listdir("/proc/self/fd"))
            row = [soak.seconds, soak.env_step, resident, soak.buffer_bytes]
            table.writerow([*row, threading.active_count(), files])
            file.flush()
            time.sleep(1)
            soak.seconds += 1


@contextlib.contextmanager
def disk(size: str) -> Iterator[tuple[Path, bool]]:
    """A folder on a file system of its own, or, without the right to mount one, not."""
    with tempfile.TemporaryDirectory() as name:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", name]
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
        try:
            yield Path(name), mounted
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", name], check=True)


def call(soak: Soak, said: Path, **changed: Any) -> int:
    """`main`, with what it prints kept in the file `said`."""
    arguments = options({**VALUES, **changed})
    with said.open("a") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main(["--config", str(CONF / "mppve.yaml"), *arguments])
        print(f"--- exit {status} after {soak.ending}", flush=True)
    return status


def train(soak: Soak, minutes: float, said: Path) -> list[str]:
    """Call `main` until the time is over, and to the run's end; returns what was wrong."""
    wrong = []
    while not soak.over:
        status, expected = call(soak, said), ENDING.get(soak.ending or "", 0)
        if status != expected:
            wrong.append(f"exit {status}, not {expected}, after {soak.ending}")
        soak.damage()
        soak.ending = soak.task = None
        soak.over = soak.seconds >= 60 * minutes
    for fault in list(soak.until):
        soak.lift(fault)
    soak.server.start()
    status = call(soak, said, **{"trainer.max_epochs": soak.furthest // EPOCH + 1})
    return [*wrong, f"exit {status} in the end"] if status else wrong


def compare(soak: Soak, said: Path) -> list[str]:
    """What the checkpoint, MLflow and the count of steps do not agree on."""
    (last,) = soak.folder.rglob("last.ckpt")
    saved, steps = read(last)[RUN], soak.env_step
    stored = saved["data"]["replay"]["steps"] - VALUES["data.warmup_steps"]
    run = only_run(soak.server.uri)
    hung = re.findall(r"evaluation at environment step ([\d,]+) took longer", said.read_text())
    given_up = {int(step.replace(",", "")) for step in hung}
    due = set(range(EVALUATION, steps + 1, EVALUATION))
    expected = {
        **{name: set(range(1, steps + 1)) for name in EVERY_STEP},
        **{name: due - given_up for name in EVERY_EVALUATION},
        "dynamics/holdout_mse": set(range(0, steps + 1, FIT)),
    }
    client = MlflowClient(f"sqlite:///{soak.server.folder}/server.db")
    wrong = []
    for name, at in expected.items():
        found = {entry.step for entry in client.get_metric_history(run.info.run_id, name)}
        if at - found:
            wrong.append(
                f"{len(at - found)} values of {name} are not in MLflow: {sorted(at - found)}"
            )
        if max(found) > steps:
            wrong.append(f"{name} has a value of step {max(found)}, after the last one")
    counts = {
        "environment steps": steps,
        "steps of the last checkpoint": saved["env_step"],
        "transitions stored": stored,
        "MLflow's last step": max(
            entry.step for entry in client.get_metric_history(run.info.run_id, EVERY_STEP[0])
        ),
    }
    print(counts, run.info.status)
    if len(set(counts.values())) > 1 or run.info.status != "FINISHED":
        wrong.append(f"the counts differ, or the run has not ended: {counts} {run.info.status}")
    return wrong


def soak_for(minutes: float, seed: int, results: Path) -> list[str]:
    """Train under faults; returns what was wrong."""
    results.mkdir(parents=True, exist_ok=True)
    with disk("128m") as (folder, can_fill), tempfile.TemporaryDirectory() as other:
        said = Path(other, "said")
        server = Server(Path(other))
        server.start()
        os.environ["MLFLOW_TRACKING_URI"] = server.uri
        lit_mbrl.tracking.PATIENCE = 2.0
        soak = Soak(folder, server, random.Random(seed), can_fill)
        patch(soak)
        threading.Thread(target=sample, args=(soak, results / "samples.csv"), daemon=True).start()
        sys.argv = ["fit"]
        try:
            with contextlib.chdir(folder):
                wrong = train(soak, minutes, said)
            soak.ended = True  # what the comparison reads is no part of the run
            wrong += compare(soak, said)
        except BaseException:
            print("\n".join(said.read_text().splitlines()[-20:]), file=sys.stderr)
            raise
        finally:
            server.stop()
            with (results / "faults.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("seconds", "env_step", "fault"), *soak.faults])
    for fault, times in sorted(Counter(fault for *_, fault in soak.faults).items()):
        print(f"{fault}: {times}")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "soak")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "soak.png")
    given = parser.parse_args()
    failures = soak_for(given.minutes, given.seed, given.results.absolute())
    draw(given.results, given.figure)
    grown = growth(read_samples(given.results / "samples.csv"))
    print(f"memory less buffers grew by {grown:.1f} MiB")
    if grown > MARGIN:
        failures.append(f"memory grew by {grown:.1f} MiB more than the buffers")
    print("\n".join(failures) or "nothing was lost")
    sys.exit(bool(failures))
