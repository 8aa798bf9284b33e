"""docs/your_own_task.md, as it is written."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import mujoco
import pytest
from mlflow.tracking import MlflowClient
from tiny import TINY, TINY_MODEL, execute

from lit_mbrl.checkpoints import read

ROOT = Path(__file__).parents[1]


def blocks() -> dict[str, list[str]]:
    """What stands on the page, in its order, by language."""
    page = (ROOT / "docs" / "your_own_task.md").read_text()
    found = defaultdict(list)
    for language, text in re.findall(r"```(python|yaml|sh)\n(.*?)```", page, re.DOTALL):
        found[language].append(text)
    return found


def test_the_page_goes_from_nothing_to_a_learning_curve(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "my_task.py").write_text(blocks()["python"][0])
    (tmp_path / "rail.yaml").write_text(blocks()["yaml"][0])
    for line in blocks()["sh"][0].splitlines():
        python, *words = shlex.split(line)
        assert python == "python"
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert "my_task:Rail-v0" in (tmp_path / "report" / "index.html").read_text()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("lit_mbrl")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "eval/return_mean")
    # A cart that is left alone falls off; one that never moves would have 50.
    assert max(entry.value for entry in history) > 75


@pytest.mark.parametrize(
    ("place", "module", "package", "sizes"),
    [(1, "my_maze", "gymnasium_robotics", (8, 2)), (2, "my_cartpole", "dm_control", (5, 1))],
)
def test_tasks_of_others_work_through_gymnasiums_wrappers(
    place: int,
    module: str,
    package: str,
    sizes: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page's module with the options of its command, in a run that is tiny besides."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if package == "dm_control" and mujoco.__version__ >= "4":
        pytest.skip("dm_control does not run on this MuJoCo")
    (tmp_path / f"{module}.py").write_text(blocks()["python"][place])
    monkeypatch.syspath_prepend(tmp_path)
    words = shlex.split(blocks()["sh"][place])
    given = dict(zip(words[3::2], words[4::2], strict=True))
    del given["--config"]
    values = {name.removeprefix("--"): value for name, value in given.items()}
    assert values["data.env_id"].startswith(f"{module}:")
    run = execute("MBPO", tmp_path, ROOT / "conf" / "mbpo.yaml", values | TINY | TINY_MODEL)
    assert run.status == 0
    assert sorted(run.metrics["eval/return_mean"]) == [20, 40]
    learned = read(run.checkpoints / "last.ckpt")["hyper_parameters"]
    assert (learned["observation_size"], learned["action_size"]) == sizes
