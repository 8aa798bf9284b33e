"""Several seeds at once: stopped and gone on with, one of them failing, on a terminal and not."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import yaml
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from tiny import CONF, TINY, options

from lit_mbrl.checkpoints import RUN, read
from lit_mbrl.seeds import cores, main

LASTING = {**TINY, "trainer.max_epochs": 100}


def arguments(*words: str, **changed: Any) -> list[str]:
    return [*words, "--config", str(CONF / "sac.yaml"), *options({**LASTING, **changed})]


def runs(folder: Path, kind: str) -> list[MlflowRun]:
    """Those with the tag `seeds`, which are parents, or `seed`, the newest first."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("lit_mbrl")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], order_by=["start_time DESC"])
    return [run for run in found if kind in run.data.tags]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of all commands here."""
    folder = tmp_path_factory.mktemp("seeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(sys, "argv", ["seeds"])
        yield folder


@pytest.fixture(scope="module")
def stopped(folder: Path) -> tuple[int, str]:
    """Two seeds on a terminal, stopped by SIGHUP: the exit status and what was to be seen."""
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_mbrl.seeds", *arguments("--seeds", "0", "1", "--at_once", "2")],
        stderr=terminal,
    )
    os.close(terminal)
    seen = ""
    with suppress(OSError):  # how a terminal says that nobody has it open any more
        while text := os.read(master, 4096).decode(errors="replace"):
            begun = all(f"seed {seed}: " in seen for seed in (0, 1))
            seen += text
            if not begun and all(f"seed {seed}: " in seen for seed in (0, 1)):
                process.send_signal(signal.SIGHUP)
    os.close(master)
    return process.wait(), seen


def test_a_signal_ends_all_seeds_which_save(stopped: tuple[int, str], folder: Path) -> None:
    status, seen = stopped
    assert status == 128 + signal.SIGHUP, seen
    assert "SIGHUP: the seeds finish their step and save" in seen
    (parent,) = runs(folder, "seeds")
    children = runs(folder, "seed")
    assert {run.data.tags["seed"] for run in children} == {"0", "1"}
    for run in children:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert (folder / "checkpoints" / run.info.run_id / "last.ckpt").exists()
    assert {run.info.status for run in [parent, *children]} == {"KILLED"}


def test_each_seed_has_a_bar_on_a_terminal(stopped: tuple[int, str]) -> None:
    for seed in (0, 1):
        assert re.search(rf"seed {seed}: .*\| \d+/4000 \[.*<.* env steps", stopped[1])


def test_seeds_go_on_and_one_that_fails_ends_no_other(
    stopped: tuple[int, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two go on where they were; the third cannot write its results."""
    before = runs(folder, "seed")
    steps = [read(path)[RUN]["env_step"] for path in folder.rglob("last.ckpt")]
    epochs = max(steps) // 40 + 2
    (folder / "results" / "seed2.csv").mkdir(parents=True)
    given = arguments(
        *("--seeds", "0", "1", "2", "--at_once", "2", "--ckpt_path", "last"),
        **{"trainer.max_epochs": epochs, "results.folder": "results"},
    )
    assert main(given) == 1
    captured = capsys.readouterr()
    parent, first = runs(folder, "seeds")
    assert [first.info.status, parent.info.status] == ["KILLED", "FAILED"]
    assert parent.data.tags["seeds"] == "0 1 2"
    # What is seen.
    for seed in (0, 1):
        assert f"seed {seed}, going on from checkpoints/" in captured.out
        assert re.search(rf"^seed {seed}, environment step \d+: return", captured.out, re.M)
    log = Path("logs", parent.info.run_id, "seed2.log")
    failure, last = captured.err.splitlines()
    assert failure == f"seed 2 failed: {log.read_text().splitlines()[-1]} ({log})"
    assert last == "error: 1 of 3 seeds failed: 2"
    # What is kept.
    finished = [run for run in runs(folder, "seed") if run.info.status == "FINISHED"]
    assert {run.info.run_id for run in finished} == {run.info.run_id for run in before}
    assert {run.data.tags["mlflow.parentRunId"] for run in finished} == {parent.info.run_id}
    finals = [run.data.metrics["eval/return_mean"] for run in finished]
    assert parent.data.metrics["eval/return_mean"] == pytest.approx(mean(finals))
    assert parent.data.metrics["seeds/succeeded"] == 2
    for seed in (0, 1):
        described = yaml.safe_load((folder / "results" / f"seed{seed}.yaml").read_text())
        assert described["finished"]
        assert described["configuration"]["seed_everything"] == seed
        threads = int(os.environ.get("OMP_NUM_THREADS", max(1, cores() // 2)))
        assert described["machine"]["threads"] == threads


REFUSED = {
    "no seeds": (["--at_once", "2"], "seeds: [] was given"),
    "a seed twice": (["--seeds", "1", "1"], "seeds: [1, 1] was given"),
    "a seed that is none": (["--seeds", "1", "one"], "argument --seeds: invalid int value: 'one'"),
    "none at a time": (["--seeds", "1", "--at_once", "0"], "at_once: 0 was given"),
    "one checkpoint for all": (
        ["--seeds", "1", "--ckpt_path", "some.ckpt"],
        "ckpt_path: 'some.ckpt' was given",
    ),
    "an option that fit has not": (
        ["--seeds", "1", "--data.bach_size", "3"],
        "data.bach_size: no such option; did you mean data.batch_size?",
    ),
    "a value that fit refuses": (["--seeds", "1", "--data.warmup_steps", "0"], "data.warmup_steps"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_once(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, before anything runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["seeds"])
    words, expected = REFUSED[case]
    assert main(["--config", str(CONF / "sac.yaml"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {expected}")
    assert list(tmp_path.iterdir()) == []
