"""Faults drawn at random during a run: signals, and of task, learning, checkpoint, disk, server."""

import contextlib
import os
import random
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from mlflow_server import Server
from task_faults import spoiled

from lit_mbrl.algorithms import MPPVE

MIB = 2**20
EVALUATION = 50  # environment steps
CHECKPOINT = 25

# Those that end a call of `main`, by its exit status, and those that training goes on under.
ENDING = {
    "SIGINT": 128 + signal.SIGINT,
    "SIGTERM": 128 + signal.SIGTERM,
    "newest checkpoint truncated": 128 + signal.SIGTERM,
    "newest checkpoint with a flipped bit": 128 + signal.SIGTERM,
    "task: raises in step": 1,
    "task: raises in reset": 1,
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
            self.task = fault.removeprefix("task: ")
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
    return replay.snapshot()["rows"].nbytes if len(replay) else 0


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
        observation, reward = spoiled(soak.task, observation, reward)
        return observation, reward, *rest

    def faulty_reset(env: HopperEnv, **given: Any) -> Any:
        trains = threading.current_thread() is threading.main_thread()
        if trains and soak.task == "raises in reset":
            raise OSError("no leg")
        return reset(env, **given)

    MPPVE.training_step = training_step  # type: ignore[method-assign]
    HopperEnv.step, HopperEnv.reset = faulty_step, faulty_reset  # type: ignore[method-assign]
