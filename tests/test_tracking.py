"""Real MLflow servers and stores that go away, or are full, while a run is recorded."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from lit_mbrl.callbacks import Evaluation
from mlflow.tracking import MlflowClient
from mlflow_server import Server
from tiny import CONF, EVERY_STEP, TINY, Lost, execute, losses, only_run, options

import lit_mbrl.tracking
from lit_mbrl.algorithms import SAC
from lit_mbrl.fit import main
from lit_mbrl.tracking import RunLogger


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    made = Server(folder)
    made.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    monkeypatch.setattr(sys, "argv", ["fit"])
    yield made
    made.stop()


def arguments(**changed: Any) -> list[str]:
    values = {**TINY, "trainer.log_every_n_steps": 1, **changed}
    return ["--config", str(CONF / "sac.yaml"), *options(values)]


def at_step(monkeypatch: pytest.MonkeyPatch, actions: dict[int, Any]) -> None:
    """Do something at the end of a step."""
    step = SAC.training_step

    def acting(agent: SAC, *args: Any) -> None:
        step(agent, *args)
        actions.get(agent.env_steps, lambda: None)()

    monkeypatch.setattr(SAC, "training_step", acting)


@pytest.mark.fault("MLflow server away for a while")
def test_a_server_that_comes_back_misses_nothing(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost: Lost,
) -> None:
    """Away from step 10 to step 30, then killed in mid-run."""
    monkeypatch.setattr(lit_mbrl.tracking, "PATIENCE", 0.0)
    at_step(monkeypatch, {10: server.stop, 30: server.start})
    assert main(arguments()) == 0
    assert capsys.readouterr().err.count("does not answer: metrics are kept in") >= 1
    assert only_run(server.uri).info.status == "FINISHED"
    lost(*losses(server.uri, tmp_path))
    assert not list((tmp_path / "unsent").iterdir())


@pytest.mark.fault("MLflow server gone for good, told later")
def test_a_server_that_is_gone_for_good_does_not_end_the_run(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost: Lost,
) -> None:
    """Nor one that goes on. And a later one is told everything by the same command."""
    at_step(monkeypatch, {10: server.stop})
    assert main(arguments()) == 0
    assert "is sent by the same command with --ckpt_path last" in capsys.readouterr().err
    # It may even go on without one.
    assert main(arguments(ckpt_path="last", **{"trainer.max_epochs": 2})) == 0
    server.start()
    assert only_run(server.uri).info.status == "RUNNING"
    assert main(arguments(ckpt_path="last", **{"trainer.max_epochs": 2})) == 0
    assert only_run(server.uri).info.status == "FINISHED"
    lost(*losses(server.uri, tmp_path, 80, (20, 40, 60, 80)))
    assert not list((tmp_path / "unsent").iterdir())


def test_a_server_that_was_never_there_is_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(sys, "argv", ["fit"])
    assert main(arguments()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: trainer.logger.tracking_uri: 'http://127.0.0.1:9' was given")
    assert list(tmp_path.iterdir()) == []


def fill(disk: Path) -> None:
    """Leave no room on it."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


@pytest.fixture
def store(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """On the small disk."""
    uri = f"sqlite:///{small_disk}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(sys, "argv", ["fit"])
    return uri


@pytest.mark.fault("disk full for a while: MLflow's store and the working directory")
def test_a_disk_that_is_full_for_a_while_misses_nothing(
    store: str,
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost: Lost,
) -> None:
    """The working directory's, from step 10 to step 30: neither store nor file takes a metric."""
    monkeypatch.chdir(small_disk)
    monkeypatch.setattr(lit_mbrl.tracking, "PATIENCE", 0.0)
    at_step(monkeypatch, {10: lambda: fill(small_disk), 30: (small_disk / "filler").unlink})
    assert main(arguments(**{"checkpoint.folder": tmp_path / "checkpoints"})) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{store} does not answer: metrics are kept in ")
    assert second.endswith(".jsonl cannot be written (No space left on device): kept in memory")
    assert only_run(store).info.status == "FINISHED"
    lost(*losses(store, tmp_path))
    assert not list((small_disk / "unsent").iterdir())


@pytest.mark.fault("disk of MLflow's store full for good, told later")
def test_a_disk_that_stays_full_does_not_end_the_run(
    store: str,
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost: Lost,
) -> None:
    """Where the working directory has room, the same command sends everything later."""
    monkeypatch.chdir(tmp_path)
    at_step(monkeypatch, {10: lambda: fill(small_disk)})
    assert main(arguments()) == 0
    _, last = capsys.readouterr().err.splitlines()
    assert last.endswith("is sent by the same command with --ckpt_path last")
    (small_disk / "filler").unlink()
    assert main(arguments(ckpt_path="last")) == 0
    assert only_run(store).info.status == "FINISHED"
    lost(*losses(store, tmp_path))


def test_metrics_that_nothing_takes_are_said_to_be_lost(
    store: str,
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(small_disk)
    at_step(monkeypatch, {10: lambda: fill(small_disk)})
    assert main(arguments(**{"checkpoint.folder": tmp_path / "checkpoints"})) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    lost = re.fullmatch(r"(\d+) metrics of run \w+ are lost: no room for them", last)
    assert lost and int(lost[1]) >= 30 * len(EVERY_STEP)


def test_a_disk_that_is_full_when_a_run_begins_ends_it_in_one_line(
    store: str,
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After the store has been made, and before the run's parameters are in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Evaluation, "setup", lambda *args, **kwargs: fill(small_disk))
    assert main(arguments()) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: trainer.logger: the run could not be begun: (")
    assert last.endswith("database or disk is full")


def test_a_metric_that_is_refused_holds_no_other_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logger = lit_mbrl.tracking.RunLogger()
    for step in (1, 2):
        logger.log_metrics({"good": step, "bad!key": step, "better": step}, step)
    logger.finalize()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("good", "better"):
        history = client.get_metric_history(logger.run_id, name)
        assert [(entry.step, entry.value) for entry in history] == [(1, 1), (2, 2)]
    assert capsys.readouterr().err.count("refuses the metric 'bad!key'") == 1
    assert not Path("unsent").exists()


def test_a_store_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    """Making one takes MLflow seconds, and half of one could never be opened."""
    code = "from lit_mbrl.tracking import RunLogger; RunLogger().run_id"
    environment = {key: text for key, text in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    making = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    while not any(part.stat().st_size > 300_000 for part in tmp_path.rglob("mlflow.db")):
        assert making.poll() is None
        time.sleep(0.001)
    making.kill()
    making.wait()
    again = RunLogger(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert again.run_id is not None
    again.log_metrics({"some": 1.0}, step=3)
    (entry,) = again.experiment.get_metric_history(again.run_id, "some")
    assert (entry.value, entry.step) == (1.0, 3)


def test_two_runs_of_a_process_have_each_its_own_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one in its working directory; MLflow would keep to the first one's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        logger = RunLogger()
        again = RunLogger(run_id=logger.run_id)
        assert logger.tracking_uri == again.tracking_uri == f"sqlite:///{folder}/mlflow.db"
        assert again.goes_on
        assert "MLFLOW_TRACKING_URI" not in os.environ


def test_another_logger_before_it_takes_nothing_away(tmp_path: Path) -> None:
    """Tags, the configuration, the last line, and the run that is gone on with."""
    config = yaml.safe_load((CONF / "sac.yaml").read_text())
    csv = {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": "csv"}}
    config["trainer"]["logger"] = [csv, config["trainer"]["logger"]]
    path = tmp_path / "two_loggers.yaml"
    path.write_text(yaml.safe_dump(config))
    first = execute("SAC", tmp_path, path, TINY)
    again = execute("SAC", tmp_path, path, {**TINY, "trainer.max_epochs": 2, "ckpt_path": "last"})
    assert again.run_id == first.run_id
    assert set(again.metrics["critic/loss"]) == {20, 40, 60, 80}
    assert only_run(f"sqlite:///{tmp_path}/mlflow.db").data.tags["algorithm"] == "SAC"
    assert len(list(tmp_path.glob("csv/**/metrics.csv"))) == 2
