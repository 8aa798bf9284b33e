"""Faults of tasks, networks and disks, injected for real."""

import errno
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from task_faults import spoiled
from tiny import CONF, TINY, TINY_MODEL, Lost, losses, options

from lit_mbrl.algorithms import MPPVE, SAC
from lit_mbrl.checkpoints import RUN, AtomicCheckpointIO, is_sound, previous, read
from lit_mbrl.data import ReplayData
from lit_mbrl.fit import main


class Faulty(gymnasium.Env[np.ndarray, np.ndarray]):
    """Well for 229 steps, then at fault; its episodes take 20 steps."""

    def __init__(self, fault: str) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,))
        self.fault, self.steps = fault, 0

    def observe(self) -> np.ndarray:
        return self.np_random.normal(size=3).astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if self.fault == "never up":
            raise OSError("not up")
        if self.fault == "raises in reset" and self.steps >= 220:
            raise OSError("no arm")
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        observation, reward = self.observe(), 1.0
        if self.steps >= 230:
            observation, reward = spoiled(self.fault, observation, reward)
        return observation, reward, False, self.steps % 20 == 0, {}


EXPECTED = {
    "raises in step": "the task's step failed: RuntimeError('the arm fell off')",
    "raises in reset": "the task's reset failed: OSError('no arm')",
    "NaN observation": "the task returned the observation [",
    "infinite observation": "the task returned the observation [",
    "infinite reward": "the task returned a reward of inf",
    "NaN reward": "the task returned a reward of nan",
    "larger observation": "the task returned an observation of shape (4,), not (3,)",
}


class Hanging(Faulty):
    """Its copies for evaluation, which are seeded with large numbers, hang in their fifth step."""

    hangs = Event()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.np_random_seed > 1000 and self.steps == 4:
            self.hangs.wait()
        return super().step(action)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["fit"])
    gymnasium.register("Faulty-v0", Faulty)
    gymnasium.register("Hanging-v0", Hanging)
    Hanging.hangs.clear()
    yield
    Hanging.hangs.set()
    del gymnasium.registry["Faulty-v0"], gymnasium.registry["Hanging-v0"]


def arguments(algorithm: str, **changed: Any) -> list[str]:
    model = {} if algorithm == "sac" else TINY_MODEL
    values = {**TINY, **model, "data.env_id": "InvertedPendulum-v5", **changed}
    return ["--config", str(CONF / f"{algorithm}.yaml"), *options(values)]


@pytest.mark.fault("task: {fault}")
@pytest.mark.parametrize("fault", EXPECTED)
def test_a_task_at_fault_ends_the_run_with_a_checkpoint(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: Lost
) -> None:
    """Nothing undefined is stored, and all that came before is."""
    given = {"data.env_id": "Faulty-v0", "data.termination": "never", "checkpoint.every": 1000}
    given |= {"evaluation.every": 1000, "trainer.log_every_n_steps": 1}
    values = {**given, "data.env_kwargs": f"{{fault: {fault}}}"}
    assert main(arguments("sac", **values)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    # 200 steps of warm-up; the one at fault is not counted.
    done = 19 if fault == "raises in reset" else 29
    assert last.startswith(f"error: {EXPECTED[fault]}")
    assert f"stopped after environment step {done}, the last checkpoint is" in last
    (path,) = tmp_path.rglob("last.ckpt")
    saved = read(path)[RUN]
    assert saved["env_step"] == done
    rows = saved["data"]["replay"]["rows"]
    assert len(rows) == 200 + done
    assert bool(rows.isfinite().all())
    store = f"sqlite:///{tmp_path}/mlflow.db"
    lost(*losses(store, tmp_path, last=done, evaluations=()))
    # The repaired task goes on from there.
    repaired = {**values, "data.env_kwargs": "{fault: none}", "checkpoint.every": 20}
    assert main(arguments("sac", **repaired, ckpt_path=str(path))) == 0
    assert "return" not in capsys.readouterr().err
    lost(*losses(store, tmp_path, evaluations=()))


def test_a_task_that_is_still_at_fault_leaves_the_checkpoint_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Going on with a task that cannot even be reset, twice, keeps what was learned."""
    given = {"data.env_id": "Faulty-v0", "data.termination": "never", "evaluation.every": 1000}
    faulty = {**given, "data.env_kwargs": "{fault: NaN reward}"}
    assert main(arguments("sac", **faulty)) == 1
    (path,) = tmp_path.rglob("last.ckpt")
    content = path.read_bytes()
    for _ in range(2):
        values = {**given, "data.env_kwargs": "{fault: never up}", "ckpt_path": str(path)}
        assert main(arguments("sac", **values)) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert "reset failed: OSError('not up')" in last
        assert f"the last checkpoint is {path}" in last
        assert path.read_bytes() == content


@pytest.mark.fault("evaluation hangs")
def test_an_evaluation_that_hangs_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: Lost
) -> None:
    """Training goes on to its end without it."""
    task = {"data.env_id": "Hanging-v0", "data.termination": "never"}
    values = {**task, "data.env_kwargs": "{fault: none}", "evaluation.time_limit": 0.5}
    assert main(arguments("sac", **values, **{"trainer.log_every_n_steps": 1})) == 0
    err = capsys.readouterr().err
    for step in (20, 40):
        assert f"the evaluation at environment step {step} took longer than" in err
    lost(*losses(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, evaluations=()))


def test_a_task_at_fault_in_the_warm_up(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"data.env_id": "Faulty-v0", "data.termination": "never", "data.warmup_steps": 300}
    assert main(arguments("sac", **values, **{"data.env_kwargs": "{fault: NaN reward}"})) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("a reward of nan; stopped after environment step 0")


@pytest.mark.fault("{network} diverges")
@pytest.mark.parametrize("network", ["actor", "critic", "dynamics"])
def test_a_network_that_diverges_ends_the_run_and_keeps_the_checkpoint(
    network: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost: Lost,
) -> None:
    """At step 25 of 40 its weights become undefined; it goes on from step 20, which was saved."""
    poison(monkeypatch, network, times=1)
    values = {"trainer.log_every_n_steps": 1}
    assert main(arguments("mppve", **values)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    (path,) = tmp_path.rglob("last.ckpt")
    assert last.endswith(f"the last checkpoint is {path.relative_to(tmp_path)}")
    checkpoint = read(path)
    assert checkpoint[RUN]["env_step"] == 20
    assert all(bool(value.isfinite().all()) for value in checkpoint["state_dict"].values())
    rows = checkpoint[RUN]["data"]["replay"]["rows"]
    assert bool(rows.isfinite().all())
    assert main(arguments("mppve", **values, ckpt_path="last")) == 0
    lost(*losses(f"sqlite:///{tmp_path}/mlflow.db", tmp_path))


@pytest.mark.fault("critic diverges twice, and the run goes on by itself")
def test_a_diverged_run_goes_on_by_itself_if_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost: Lost,
) -> None:
    """And each time the buffers of the time before make room for its own."""
    poison(monkeypatch, "critic", times=2)
    poisoned, living = MPPVE.training_step, []

    def counting(agent: MPPVE, *args: Any) -> None:
        poisoned(agent, *args)
        if agent.env_steps == 22:
            living.append(sum(type(found) is ReplayData for found in gc.get_objects()))

    monkeypatch.setattr(MPPVE, "training_step", counting)
    values = {"checkpoint.restores": 2, "trainer.log_every_n_steps": 1}
    assert main(arguments("mppve", **values)) == 0
    assert len(living) == 3 and max(living) == living[0]
    captured = capsys.readouterr()
    assert captured.err.count(": going on from it") == 2
    assert captured.out.count("environment step 20: return") == 1
    lost(*losses(f"sqlite:///{tmp_path}/mlflow.db", tmp_path))


def poison(monkeypatch: pytest.MonkeyPatch, network: str, times: int) -> None:
    """Make weights undefined in step 25, so often."""
    step, left = MPPVE.training_step, [times]

    def poisoned(agent: MPPVE, *args: Any) -> None:
        step(agent, *args)
        if agent.env_steps == 25 and left[0]:
            left[0] -= 1
            next(getattr(agent, network).parameters()).data.fill_(torch.nan)

    monkeypatch.setattr(MPPVE, "training_step", poisoned)


def test_a_full_disk_keeps_the_checkpoint_before(small_disk: Path) -> None:
    path, io = small_disk / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"step": 1, "rows": torch.zeros(10_000)}, path)
    io.save_checkpoint({"step": 2, "rows": torch.zeros(10_000)}, path)
    with pytest.raises(OSError) as raised:
        io.save_checkpoint({"step": 3, "rows": torch.zeros(2_000_000)}, path)
    assert raised.value.errno == errno.ENOSPC
    assert is_sound(path) and read(path)["step"] == 2
    assert is_sound(previous(path)) and read(previous(path))["step"] == 1
    assert {found.name for found in small_disk.iterdir()} == {"last.ckpt", "last.previous.ckpt"}


@pytest.mark.fault("disk full while checkpointing")
def test_a_run_survives_a_full_disk(
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost: Lost,
) -> None:
    """Training goes on without a checkpoint, says so, and writes one when there is room again."""
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2**22 - 50_000))
    step = SAC.training_step

    def freeing(agent: SAC, *args: Any) -> None:
        step(agent, *args)
        if agent.env_steps == 30:
            # The weights alone were small enough.
            assert {found.name for found in small_disk.iterdir()} == {"best.ckpt", "filler", "lock"}
            filler.unlink()

    monkeypatch.setattr(SAC, "training_step", freeing)
    values = {"checkpoint.folder": str(small_disk), "trainer.log_every_n_steps": 1}
    assert main(arguments("sac", **values)) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"checkpoint {small_disk}/last.ckpt was not written at environment step 20 "
        "(No space left on device); the one before it is kept"
    )
    lost(*losses(f"sqlite:///{tmp_path}/mlflow.db", small_disk))
