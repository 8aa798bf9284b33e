"""A real MLflow server that goes away while a run is recorded."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.tracking import MlflowClient
from tiny import CONF, TINY, options

import lit_mbrl.tracking
from lit_mbrl.algorithms import SAC
from lit_mbrl.fit import main

CORE = ("critic/loss", "critic/value", "actor/loss", "actor/entropy", "temperature")


class Server:
    """MLflow's own, on loopback, with a store that outlives it."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        artifacts = ["--artifacts-destination", str(self.folder / "artifacts")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, *store, *artifacts],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(600):
            try:
                requests.get(f"{self.uri}/health", timeout=1).raise_for_status()
                return
            except requests.RequestException:
                assert self._process.poll() is None
                time.sleep(0.2)
        raise AssertionError("the server did not start")

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


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


def recorded(server: Server) -> tuple[str, dict[str, list[int]]]:
    """Status of the only run, and the steps of its metrics."""
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("lit_mbrl")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    steps = {
        name: sorted({entry.step for entry in client.get_metric_history(run.info.run_id, name)})
        for name in (*CORE, "eval/return_mean")
    }
    return run.info.status, steps


EVERYTHING = {**{name: list(range(1, 41)) for name in CORE}, "eval/return_mean": [20, 40]}


def test_a_server_that_comes_back_misses_nothing(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Away from step 10 to step 30, then killed in mid-run."""
    monkeypatch.setattr(lit_mbrl.tracking, "PATIENCE", 0.0)
    at_step(monkeypatch, {10: server.stop, 30: server.start})
    assert main(arguments()) == 0
    assert capsys.readouterr().err.count("does not answer: metrics are kept in") == 1
    assert recorded(server) == ("FINISHED", EVERYTHING)
    assert not list((tmp_path / "unsent").iterdir())


def test_a_server_that_is_gone_for_good_does_not_end_the_run(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And a later one is told everything by the same command."""
    at_step(monkeypatch, {10: server.stop})
    assert main(arguments()) == 0
    assert "is sent by the same command with --ckpt_path last" in capsys.readouterr().err
    server.start()
    assert recorded(server)[0] == "RUNNING"
    assert main(arguments(ckpt_path="last")) == 0
    assert recorded(server) == ("FINISHED", EVERYTHING)
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
