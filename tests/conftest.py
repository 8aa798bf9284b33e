"""What all tests share."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The networks of the tests are tiny: more threads would only wait for each other. Set before torch
# is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import lit_mbrl  # isort: skip  # noqa: F401  # before torch, see lit_mbrl.mkl
import torch

# Under nohup it would be ignored, also by the processes that tests start and hang up on.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# TorchRL reports every storage it allocates.
logging.getLogger("torchrl").setLevel(logging.WARNING)

LONGEST = (
    "test_benchmarks.py",
    "test_interruption.py",
    "test_seeds.py",
    "test_compilation.py",
    "test_your_own_task.py",
    "test_wheel.py",
    "test_tracking.py",
    "test_resume.py",
    "test_device.py",
)
"""Files that take minutes; one that began last would leave the other processes without work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    first = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws with torch does not depend on the tests before it in its process."""
    torch.manual_seed(0)


@pytest.fixture
def lost(record_property: Callable[[str, object], None]) -> Callable[[int, int], None]:
    """Asserts that a fault has cost no transition and no metric; tests/fault_table.py reads it."""

    def note(transitions: int, metrics: int) -> None:
        record_property("transitions", transitions)
        record_property("metrics", metrics)
        assert (transitions, metrics) == (0, 0)

    return note


@pytest.fixture(scope="module")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the MLflow store that building a run makes, which belongs in no checkout."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def elsewhere(build_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where configurations can be built: one folder for all of a module's tests."""
    monkeypatch.chdir(build_folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # Lightning warns of arguments that do not come from the process's own command line.
    monkeypatch.setattr(sys, "argv", ["fit"])


@pytest.fixture(scope="module")
def sac(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SAC's run of two epochs, without a stop."""
    from resuming import start  # it imports torch

    return start("SAC", tmp_path_factory.mktemp("sac"))


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a user's own module on the path."""
    from refusals import USERS_MODULE

    path = tmp_path / "path"
    path.mkdir()
    (path / "users_module.py").write_text(USERS_MODULE)
    monkeypatch.syspath_prepend(path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # Lightning warns of arguments that do not come from the process's own command line.
    monkeypatch.setattr(sys, "argv", ["fit"])
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a file system needs privileges")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five seeds of MPPVE on Hopper, one cut short, a variant, and SAC on two tasks."""
    from report_page import write

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["report"])
    folder = tmp_path / "results"
    finals = [100.0, 200.0, 300.0, 400.0, 1000.0]
    for seed, final in enumerate(finals):
        more = [final - 30, final, final + 30]
        write(folder, "mppve", "MPPVE", "Hopper-v5", seed, [10.0, *more], finished=seed != 3)
    write(folder, "mppve-bf16", "MPPVE", "Hopper-v5", 0, [])
    write(folder, "sac", "SAC", "Hopper-v5", 7, [0.0], every=5000)
    write(folder, "sac", "SAC", "InvertedPendulum-v5", 7, [949.0, 950.0, 20.0, 951.0])
    return folder
