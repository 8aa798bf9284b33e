"""Signals, kills and a second process: what they leave, and that the run goes on from it."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kill_and_go_on import MOMENTS, kill_and_go_on
from mlflow.tracking import MlflowClient
from resuming import metrics_lost, overrides, process, start, transitions_lost
from tiny import (
    CONF,
    Lost,
    Run,
    only_run,
    options,
)

from lit_mbrl.checkpoints import RUN, read
from lit_mbrl.fit import main
from lit_mbrl.interruption import Interruption


@pytest.mark.fault("{number.name}")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run_after_a_checkpoint(
    number: signal.Signals, tmp_path: Path, lost: Lost
) -> None:
    """And `last` goes on from it, to the numbers of a run that was never stopped."""
    values = {**overrides("SAC"), "trainer.max_epochs": 1000, "checkpoint.every": 100_000}
    running = process(tmp_path, "SAC", values)
    assert running.stdout is not None
    assert "environment step 20" in running.stdout.readline()
    running.send_signal(number)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 128 + number
    assert f"{number.name}: finishing this environment step" in err
    assert "Traceback" not in err
    said = re.fullmatch(
        r".* after environment step (\d+); .*--ckpt_path last", err.splitlines()[-1]
    )
    assert said, err
    step = int(said[1])
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("lit_mbrl")
    assert experiment is not None
    (stopped,) = client.search_runs([experiment.experiment_id])
    assert stopped.info.status == "KILLED"
    (path,) = tmp_path.rglob("last.ckpt")
    assert read(path)[RUN]["env_step"] == step
    transitions = transitions_lost(path)
    epochs = step // 40 + 1
    again = start("SAC", tmp_path, ckpt_path="last", **{"trainer.max_epochs": epochs})
    assert again.run_id == stopped.info.run_id
    assert client.get_run(again.run_id).info.status == "FINISHED"
    never = start("SAC", tmp_path / "never", **{"trainer.max_epochs": epochs})
    lost(transitions, metrics_lost(again, never))


SIGNALLED = """
import os, signal
import gymnasium
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv

gymnasium.register("Pole-v0", InvertedPendulumEnv, max_episode_steps=1000)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_before_there_is_a_run_ends_it_as_any_other(tmp_path: Path) -> None:
    """It comes while the task is imported; the run that is then made does not stay RUNNING."""
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    values = {**overrides("SAC"), "data.env_id": "signalled:Pole-v0"}
    running = process(tmp_path, "SAC", values)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 128 + signal.SIGTERM, err
    assert err.splitlines()[-1].startswith("SIGTERM after environment step 1;")
    assert only_run(f"sqlite:///{tmp_path}/mlflow.db").info.status == "KILLED"


def test_nohup_keeps_a_run_from_hanging_up(tmp_path: Path) -> None:
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGHUP)
    assert interruption.signum == signal.SIGHUP
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert interruption.signum is None


KILLED = """
import os, signal, sys
from lit_mbrl import fit
from lit_mbrl.callbacks import registration

registration.register = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
fit.main(sys.argv[1:])
"""


def test_a_run_that_is_killed_at_its_end_does_what_is_left(tmp_path: Path) -> None:
    """It dies after its last step, before its policy is registered, and goes on."""
    values = {**overrides("SAC"), "registration.enabled": True, "checkpoint.every": 20}
    words = ["--config", str(CONF / "sac.yaml"), *options(values)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    again = start("SAC", tmp_path, **{**values, "ckpt_path": "last"})
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (version,) = client.search_model_versions("")
    assert version.run_id == again.run_id
    assert client.get_run(again.run_id).info.status == "FINISHED"
    assert list(again.metrics["eval/return_mean"]) == [20, 40, 60, 80]


def caught(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"SigCgt:\s*(\w+)", status)
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


@pytest.mark.fault("a second signal")
def test_a_second_signal_ends_the_process_at_once(sac: Run, tmp_path: Path, lost: Lost) -> None:
    """In the middle of a step that would take minutes, after which the run goes on as if none."""
    checkpoint = sac.checkpoints / "last.previous.ckpt"
    values = {**overrides("SAC"), "data.updates_per_step": 1_000_000, "ckpt_path": checkpoint}
    running = process(tmp_path, "SAC", values)
    assert running.stderr is not None
    while not (tmp_path / "mlflow.db").exists():
        assert running.poll() is None
        time.sleep(0.1)
    while not caught(running.pid, signal.SIGTERM):
        assert running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    said = ""
    while "once more to end at once" not in said:
        said = running.stderr.readline()
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=30) == 128 + signal.SIGINT
    assert not list(tmp_path.rglob("last.ckpt"))
    again = start("SAC", tmp_path, ckpt_path=checkpoint)
    lost(transitions_lost(again.checkpoints / "last.ckpt"), metrics_lost(again, sac, after=70))


def test_two_processes_do_not_train_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second is refused in one line, until the first has gone, however it went."""
    values = {**overrides("SAC"), "trainer.max_epochs": 1000}
    first = process(tmp_path, "SAC", values)
    assert first.stdout is not None
    assert "environment step 20" in first.stdout.readline()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fit"])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    second = ["--config", str(CONF / "sac.yaml"), *options({**values, "ckpt_path": "last"})]
    assert main(second) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ckpt_path: ")
    assert line.endswith("allowed: a checkpoint of a run that no other process trains")
    folder = next(tmp_path.rglob("lock")).parent
    third = options({**values, "checkpoint.folder": folder})
    assert main(["--config", str(CONF / "sac.yaml"), *third]) == 2
    assert f"checkpoint.folder: '{folder}' was given" in capsys.readouterr().err
    assert first.poll() is None
    first.kill()
    first.communicate()
    step = read(folder / "last.ckpt")[RUN]["env_step"]
    again = start("SAC", tmp_path, ckpt_path="last", **{"trainer.max_epochs": step // 40 + 1})
    assert again.run_id == folder.name


def test_kill_9_loses_nothing(tmp_path: Path) -> None:
    """The short form of tests/kill_and_go_on.py: one kill at each kind of moment."""
    outcome = kill_and_go_on(tmp_path, kills=3, epochs=5, longest=2)
    lost = {"transitions lost": 0, "metrics lost": 0, "metrics wrong": 0}
    assert outcome == {**dict.fromkeys(MOMENTS, 1), **lost}
