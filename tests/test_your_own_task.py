"""docs/your_own_task.md, as it is written."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parents[1]


def test_the_page_goes_from_nothing_to_a_learning_curve(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "your_own_task.md").read_text()
    blocks = dict(re.findall(r"```(python|yaml|sh)\n(.*?)```", page, re.DOTALL))
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "my_task.py").write_text(blocks["python"])
    (tmp_path / "rail.yaml").write_text(blocks["yaml"])
    for line in blocks["sh"].splitlines():
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
