"""The film of a trained policy that a run keeps, and the line where there can be none."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v2 as imageio
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box
from mlflow.tracking import MlflowClient
from tiny import CONF, TINY, Run, execute

from lit_mbrl.evaluate import main


def filmed(folder: Path, **changed: Any) -> Run:
    return execute("SAC", folder, CONF / "sac.yaml", {**TINY, "filming.enabled": True, **changed})


def test_a_run_keeps_a_film_of_its_policys_first_episode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = filmed(tmp_path)
    if "EGL" in (said := capsys.readouterr().err):
        pytest.skip(f"nothing can be drawn here: {said}")
    assert run.status == 0
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    path = client.download_artifacts(run.run_id, "videos/step_40.mp4", str(tmp_path))
    assert main([str(run.checkpoints / "last.ckpt"), "--episodes", "1", "--json"]) == 0
    (length,) = json.loads(capsys.readouterr().out)["lengths"]
    with imageio.get_reader(path) as reader:
        assert reader.count_frames() == length + 1


class Undrawn(gymnasium.Env[np.ndarray, np.ndarray]):
    """A task that draws nothing."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = Box(-1, 1, (3,)), Box(-1, 1, (1,))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(3, np.float32), 0.0, False, False, {}


def test_a_run_whose_task_cannot_be_drawn_ends_well_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EnvSpec("Undrawn-v0", Undrawn, max_episode_steps=10)
    monkeypatch.setitem(gymnasium.registry, "Undrawn-v0", spec)
    run = filmed(tmp_path, **{"data.env_id": "Undrawn-v0"})
    assert run.status == 0
    (line,) = [said for said in capsys.readouterr().err.splitlines() if "film" in said]
    assert line.startswith("no film of the policy: ") and "render_mode" in line
    assert not MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").list_artifacts(run.run_id, "videos")
