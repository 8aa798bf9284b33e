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

import argparse
import contextlib
import csv
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from mlflow.tracking import MlflowClient
from mlflow_server import Server
from tiny import CONF, EVERY_EVALUATION, EVERY_STEP, TINY, TINY_MODEL, only_run, options

import lit_mbrl.tracking
from lit_mbrl.algorithms import MPPVE
from lit_mbrl.checkpoints import RUN, read
from lit_mbrl.fit import main

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
MIB = 2**20
MARGIN = 16  # MiB
EPOCH = EVALUATION = FIT = 50  # environment steps
CHECKPOINT = 25
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
    "ckpt_path": "last",
}
# Those that end a call of `main`, by its exit status, and those that training goes on under.
ENDING = {
    "SIGINT": 128 + signal.SIGINT,
    "SIGTERM": 128 + signal.SIGTERM,
    "newest checkpoint truncated": 128 + signal.SIGTERM,
    "newest checkpoint with a flipped bit": 128 + signal.SIGTERM,
    "task raises in step": 1,
    "task raises in reset": 1,
    "task: NaN observation": 1,
    "task: infinite reward": 1,
    "task: larger observation": 1,
}
PASSING = (
    "actor diverges",
    "critic diverges",
    "dynamics diverge",
    "evaluation hangs",
    "MLflow server away",
    "disk full",
)


@dataclass
class Soak:
    """What is going on, for the patched task, algorithm and sampler to see."""

    folder: Path
    server: Server
    draw: random.Random
    can_fill: bool
    started: bool = False  # long enough for a checkpoint to be there
    env_step: int = 0
    furthest: int = 0  # the largest of them; a damaged checkpoint sets the run back
    trained: int = 0  # steps, with those that were taken again
    buffer_bytes: int = 0
    seconds: int = 0
    over: bool = False  # no more faults
    ended: bool = False
    ending: str | None = None  # the fault that ends this call of `main`
    task: str | None = None  # the fault that the task shows next
    hang: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    until: dict[str, int] = field(default_factory=dict)  # `trained` when a passing fault ends
    faults: list[tuple[int, int, str]] = field(default_factory=list)

    def after_step(self, agent: Any) -> None:
        """Maybe inject a fault, at the end of a training step."""
        self.env_step, self.trained = agent.env_steps, self.trained + 1
        self.furthest = max(self.furthest, self.env_step)
        data = agent.trainer.datamodule
        self.buffer_bytes = stored_bytes(data.replay) + stored_bytes(data.imagined)
        self.started |= self.env_step > 2 * CHECKPOINT
        for fault in [fault for fault, end in self.until.items() if self.trained >= end]:
            self.lift(fault)
        agent_is_well = not getattr(agent, "poisoned", False)
        at_ease = self.started and not self.over and not self.ending and agent_is_well
        if not at_ease or self.draw.random() > 1 / 40:
            return
        kinds = [*ENDING, *PASSING] if self.can_fill else [*ENDING, *PASSING[:-1]]
        fault = self.draw.choice(kinds)
        if fault in self.until:
            return
        self.faults.append((self.seconds, self.env_step, fault))
        if fault in ENDING:
            self.ending = fault
        if fault.startswith("task"):
            self.task = fault
        elif fault in ENDING:
            number = signal.SIGINT if fault == "SIGINT" else signal.SIGTERM
            os.kill(os.getpid(), number)
        elif "diverge" in fault:
            network = getattr(agent, fault.split()[0])
            next(network.parameters()).data.fill_(torch.nan)
            agent.poisoned = True  # until the run goes on from its checkpoint with another one
        else:
            self.until[fault] = self.trained + self.draw.randint(10, 3 * EVALUATION)
            if fault == "evaluation hangs":
                self.let_go.clear()
                self.hang.set()
            elif fault == "MLflow server away":
                self.server.stop()
            else:
                fill(self.folder)

    def lift(self, fault: str) -> None:
        """End a fault that passes; the next call of `main` may begin under it."""
        del self.until[fault]
        if fault == "evaluation hangs":
            self.hang.clear()
            self.let_go.set()
        elif fault == "MLflow server away":
            self.server.start(wait=False)
        else:
            (self.folder / "filler").unlink()

    def damage(self) -> None:
        """Between two calls, spoil the newest checkpoint if that is the fault."""
        if self.ending is None or "checkpoint" not in self.ending:
            return
        for last in self.folder.rglob("last.ckpt"):
            content = bytearray(last.read_bytes())
            middle = len(content) // 2
            content[middle] ^= 1
            os.truncate(last, middle)  # in place: there may be no room for another
            if "bit" in self.ending:
                with last.open("ab") as file:
                    file.write(content[middle:])


def stored_bytes(replay: Any) -> int:
    """The bytes of the rows that a replay buffer holds."""
    return 0 if not len(replay) else len(replay) * replay._buffer.storage[:1].bytes()


def fill(disk: Path) -> None:
    """Leave no room on it."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(MIB))
    with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(512))


def patch(soak: Soak) -> None:
    """Let the task, the algorithm and its evaluations show the faults that are drawn."""
    train, step, reset = MPPVE.training_step, HopperEnv.step, HopperEnv.reset

    def training_step(agent: MPPVE, *args: Any) -> None:
        train(agent, *args)
        soak.after_step(agent)

    def faulty_step(env: HopperEnv, action: np.ndarray) -> Any:
        if threading.current_thread() is not threading.main_thread():
            if soak.hang.is_set():
                soak.let_go.wait()
            return step(env, action)
        observation, reward, *rest = step(env, action)
        match soak.task:
            case "task raises in step":
                raise RuntimeError("the leg fell off")
            case "task: NaN observation":
                observation[3] = np.nan
            case "task: infinite reward":
                reward = np.inf
            case "task: larger observation":
                observation = np.zeros(len(observation) + 1)
        return observation, reward, *rest

    def faulty_reset(env: HopperEnv, **given: Any) -> Any:
        trains = threading.current_thread() is threading.main_thread()
        if trains and soak.task == "task raises in reset":
            raise OSError("no leg")
        return reset(env, **given)

    MPPVE.training_step = training_step  # type: ignore[method-assign]
    HopperEnv.step, HopperEnv.reset = faulty_step, faulty_reset  # type: ignore[method-assign]


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
