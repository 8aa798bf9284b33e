"""Kills a run with SIGKILL again and again, goes on from `last`, and compares with one left alone.

    python tests/kill_and_go_on.py --kills 50

A third of the kills come while the process starts (which makes MLflow's store the first time), a
third at a random moment of training, a third while a checkpoint is being written. The run is small
but has all parts: fits, imagination, evaluations, checkpoints every third step. Prints what was
lost, and fails unless every metric of the killed run equals, bit for bit, that of the run left
alone.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from tiny import CONF, TINY, TINY_MODEL, execute, learned, options

from lit_mbrl.checkpoints import RUN, read

LINES = (b"going on", b"no checkpoint")
MOMENTS = ("while it starts", "at a random moment of training", "in the write of a checkpoint")


def values(epochs: int) -> dict[str, Any]:
    return {
        **TINY,
        **TINY_MODEL,
        "data.env_id": "Hopper-v5",
        "trainer.max_epochs": epochs,
        "trainer.log_every_n_steps": 1,
        "retraining.every": 5,
        "retraining.retain_steps": 20,
        "rollout_length.end": 3,
        "rollout_length.end_step": 60,
        "checkpoint.every": 3,
    }


def kill_once(folder: Path, epochs: int, when: str, draw: random.Random, longest: float) -> bool:
    """Go on, and kill at one of the `MOMENTS`; False if the run ended before."""
    for part in folder.rglob("*.part"):  # of the kill before
        part.unlink()
    arguments = options({**values(epochs), "ckpt_path": "last"})
    config = str(CONF / "mppve.yaml")
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_mbrl.fit", "--config", config, *arguments],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
        stdout=subprocess.PIPE,
        stderr=(folder / "errors").open("w"),
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith(LINES):
        assert process.poll() is None, (folder / "errors").read_text()
    before = newest(folder)
    while process.poll() is None and when != MOMENTS[0] and newest(folder) == before:
        time.sleep(0.01)  # it trains from the first new checkpoint on
    moment = time.monotonic() + draw.uniform(0, longest)
    while process.poll() is None:
        if time.monotonic() > moment and (when != MOMENTS[2] or any(folder.rglob("*.part"))):
            process.kill()
            process.wait()
            return True
        time.sleep(0.0005)
    assert process.returncode == 0, (folder / "errors").read_text()
    return False


def newest(folder: Path) -> int:
    """When the last checkpoint was written."""
    return max((path.stat().st_mtime_ns for path in folder.rglob("last.ckpt")), default=0)


def kill_and_go_on(
    folder: Path, kills: int, epochs: int, seed: int = 0, longest: float = 4.0
) -> dict[str, int]:
    """Kill `kills` times, let the run end, and compare; returns what was tried and what was lost.

    Args:
        folder: Empty.
        kills: How often.
        epochs: Length of the run, of 40 environment steps each; it is taken further where it ends
            before the last kill.
        seed: Of the moments.
        longest: Seconds, from the start or from the first step, within which a kill comes.
    """
    draw = random.Random(seed)
    for name in ("killed", "alone"):
        (folder / name).mkdir()
    done = dict.fromkeys(MOMENTS, 0)
    while sum(done.values()) < kills:
        when = MOMENTS[sum(done.values()) % 3]
        if not kill_once(folder / "killed", epochs, when, draw, longest):
            epochs += 3
            continue
        done[when] += 1
        steps = [read(path)[RUN]["env_step"] for path in folder.rglob("last.ckpt")]
        if max(steps, default=0) == 40 * epochs:  # killed behind its last step
            epochs += 3
        print(
            f"kill {sum(done.values())}: a checkpoint of step {max(steps, default=0)}", flush=True
        )
    killed = execute(
        "MPPVE", folder / "killed", CONF / "mppve.yaml", {**values(epochs), "ckpt_path": "last"}
    )
    alone = execute("MPPVE", folder / "alone", CONF / "mppve.yaml", values(epochs))
    expected, found = learned(alone), learned(killed)
    # Values logged twice, before and after a kill, are the same ones.
    client = MlflowClient(f"sqlite:///{folder}/killed/mlflow.db")
    wrong = sorted(
        (entry.step, name, entry.value, expected[name].get(entry.step))
        for name in expected
        for entry in client.get_metric_history(killed.run_id, name)
        if entry.value != expected[name].get(entry.step)
    )
    for step, name, value, right in wrong[:10]:
        print(f"differs: step {step}, {name}, {value} instead of {right}", flush=True)
    values_expected = {(name, step) for name in expected for step in expected[name]}
    values_found = {(name, step) for name in found for step in found[name]}
    first, second = (
        read(run.checkpoints / "last.ckpt")[RUN]["data"]["replay"]["steps"]
        for run in (alone, killed)
    )
    return {
        **done,
        "transitions lost": first - second,
        "metrics lost": len(values_expected - values_found),
        "metrics wrong": len(wrong),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=40, help="of 40 environment steps")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_and_go_on(Path(folder), given.kills, given.epochs)
    for name, number in outcome.items():
        print(f"{name}: {number}")
    return int(any(outcome[name] for name in outcome if name not in MOMENTS))


if __name__ == "__main__":
    sys.exit(main())
