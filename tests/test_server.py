"""The tracking server as mlflow/ starts it: what it hears, what it keeps, what its pages show."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import mlflow.cli
import pytest
import yaml
from mlflow_server import Server
from tiny import CONF, TINY, only_run, options

from lit_mbrl.trained import load

FILES = Path(__file__).parents[1] / "mlflow"
CHROMIUM = [
    "chromium",
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1600,1200",
]


class Started(Server):
    """By the script of this repository."""

    def _started(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.Popen(
            [FILES / "serve.sh", "--port", str(self.port), "--workers", "1"],
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    started = Started(tmp_path_factory.mktemp("server"))
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def last_line(server: Started, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run on the server ends with."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server.uri}
    arguments = ["--config", str(CONF / "sac.yaml"), *options({**TINY, "checkpoint.upload": True})]
    done = subprocess.run(
        [sys.executable, "-m", "lit_mbrl.fit", *arguments],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def page(address: str, folder: Path) -> str:
    """What a browser makes of a page."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    where = [f"--user-data-dir={folder}", "--virtual-time-budget=60000", "--dump-dom"]
    command = [*CHROMIUM, *where, address]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_only_this_machine_hears_the_server(server: Started) -> None:
    """All of 127.0.0.0/8 is this machine; a server that hears every network would hear this too."""
    socket.create_connection(("127.0.0.1", server.port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.port))


def test_the_server_keeps_what_a_run_is_and_did(server: Started, last_line: str) -> None:
    run = only_run(server.uri)
    assert last_line.endswith(
        f"Look at run {run.info.run_id}: {server.uri}/#/runs/{run.info.run_id}"
    )
    assert run.info.status == "FINISHED"
    tags = {name: run.data.tags[name] for name in ("algorithm", "task", "seed")}
    assert tags == {"algorithm": "SAC", "task": "InvertedPendulum-v5", "seed": "0"}
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", run.data.tags["commit"])
    assert run.data.params["batch_size"] == "32"
    assert run.data.metrics["eval/return_mean"] > 0
    # Files go through the server to its own folder.
    stored = {path.name: path for path in (server.folder / "mlartifacts").rglob("*.*")}
    assert yaml.safe_load(stored["config.yaml"].read_text())["data"]["batch_size"] == 32
    assert load(stored["best.ckpt"]).env_id == "InvertedPendulum-v5"


def test_the_experiment_page_shows_the_run(server: Started, last_line: str, tmp_path: Path) -> None:
    run = only_run(server.uri)
    address = f"{server.uri}/#/experiments/{run.info.experiment_id}/runs?compareRunsMode=CHART"
    shown = page(address, tmp_path)
    assert run.info.run_name in shown
    assert "actor/loss" in shown  # the first charts: others are drawn when they are scrolled to


def test_the_address_of_the_last_line_shows_the_run(
    server: Started, last_line: str, tmp_path: Path
) -> None:
    run = only_run(server.uri)
    shown = page(last_line.rpartition(" ")[2], tmp_path)
    assert run.info.run_name in shown
    assert "eval/return_mean" in shown


def test_the_team_has_a_server_that_mlflow_can_start() -> None:
    """Options that this MLflow knows, settings that the example has, files that are there."""
    text = (FILES / "compose.yaml").read_text()
    service: dict[str, Any] = yaml.safe_load(text)["services"]["server"]
    program, subcommand, *given = service["command"]
    assert program == "mlflow"
    known = mlflow.cli.cli.commands[subcommand]
    assert isinstance(known, click.Command)
    parsed = known.make_context("server", list(given)).params
    assert parsed["app_name"] == "basic-auth"
    assert parsed["artifacts_destination"] in {
        volume.split(":")[1] for volume in service["volumes"]
    }
    assert service["ports"] == ["${LISTEN:-127.0.0.1}:5000:5000"]
    settings = re.findall(r"^(\w+)=", (FILES / "env.example").read_text(), re.M)
    assert set(re.findall(r"\$\{(\w+)", text)) == set(settings)
    assert (FILES / "auth.ini").exists()


def test_the_folder_does_not_shadow_the_package() -> None:
    assert not list(FILES.rglob("*.py"))
    assert Path(mlflow.__file__).parent != FILES
