"""The policy on its own: as a file of torch.export, of ONNX, and as an MLflow model."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
import onnxruntime
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from tiny import CONF, TINY, Run, execute

import lit_mbrl.export
from lit_mbrl.algorithms import SAC
from lit_mbrl.envs import make_gym_env
from lit_mbrl.export import FORMATS, TOLERANCE, difference, main
from lit_mbrl.networks import Actor
from lit_mbrl.policy import Policy
from lit_mbrl.trained import load

REGISTERED = {**TINY, "registration.enabled": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """On InvertedPendulum-v5, whose actions are in [-3, 3]."""
    return execute("sac", tmp_path_factory.mktemp("run"), CONF / "sac.yaml", REGISTERED)


def expected(checkpoint: Path, observation: np.ndarray) -> np.ndarray:
    """What the task is given in an episode: the agent's action, as the task's wrapper maps it."""
    trained = load(checkpoint)
    task: Any = make_gym_env(trained.env_id)
    with torch.no_grad():
        action = trained.agent.act(torch.from_numpy(observation).float(), deterministic=True)
    return np.stack([task.func(row) for row in action.numpy()])


def observations(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_file_acts_as_the_agent_does(
    suffix: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = run.checkpoints / "last.ckpt", tmp_path / f"policy{suffix}"
    assert main([str(checkpoint), str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"SAC on InvertedPendulum-v5, environment step 40: {out} maps observations [B, 4] to "
        "actions [B, 1]"
    )
    largest = re.fullmatch(r"1,000 random observations: .* to (\S+) of a range", lines[1])
    assert largest is not None and float(largest[1]) <= TOLERANCE
    assert [path.name for path in tmp_path.iterdir()] == [out.name], "one file holds it all"
    act: Any
    if suffix == ".pt2":
        program = torch.export.load(out).module()
        act = lambda rows: program(torch.from_numpy(rows)).numpy()  # noqa: E731
    else:
        session = onnxruntime.InferenceSession(out)
        act = lambda rows: session.run(None, {"observation": rows})[0]  # noqa: E731
    for rows in (1, 2, 7, 300):
        actions = act(observations(rows))
        assert actions.shape == (rows, 1) and actions.dtype == np.float32
        np.testing.assert_allclose(
            actions, expected(checkpoint, observations(rows)), rtol=1e-5, atol=1e-6
        )
    assert np.abs(act(30 * observations(300))).max() > 1.5, "in the task's units, not in [-1, 1]"


def test_the_files_need_none_of_our_code(run: Run, tmp_path: Path) -> None:
    for suffix in FORMATS:
        out = str(tmp_path / f"policy{suffix}")
        assert main([str(run.checkpoints / "best.ckpt"), out]) == 0
    use = """
import sys
import onnxruntime, torch
torch.export.load("policy.pt2").module()(torch.zeros(3, 4))
onnxruntime.InferenceSession("policy.onnx").run(None, {"observation": torch.zeros(3, 4).numpy()})
assert not any(name.startswith(("lit_mbrl", "pytorch_lightning")) for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", use], cwd=tmp_path, check=True)


def test_a_file_that_differs_is_noticed_and_not_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, (write, act) = tmp_path / "policy.pt2", FORMATS[".pt2"]
    task = make_gym_env("InvertedPendulum-v5")
    policy, other = Policy(load(run.checkpoints / "last.ckpt").agent, task), Policy(SAC(4, 1), task)
    observation = torch.from_numpy(observations(10))
    gap = (policy(observation) - other(observation)).abs().max() / 6
    found = difference(policy, observation, other(observation).numpy())
    assert found == pytest.approx(float(gap)) and found > TOLERANCE
    monkeypatch.setitem(lit_mbrl.export.FORMATS, ".pt2", (lambda _: write(other.program()), act))
    with pytest.raises(RuntimeError, match="differed from the policy"):
        main([str(run.checkpoints / "last.ckpt"), str(out)])
    assert not out.exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("policy.txt", ("'policy.txt' was given", ".pt2 or .onnx")),
        ("policy", ("'policy' was given", ".pt2 or .onnx")),
        ("nowhere/policy.pt2", ("'nowhere/policy.pt2' was given", "No such file or directory")),
        (None, ("missing; see --help",)),
    ],
)
def test_it_refuses_in_one_line(
    out: str | None,
    words: tuple[str, ...],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = str(run.checkpoints / "best.ckpt")
    assert main([checkpoint] if out is None else [checkpoint, out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out: ")
    assert all(word in line for word in words), line
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_it_says_what_brings_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lit_mbrl.export, "find_spec", lambda name: None)
    assert main([str(run.checkpoints / "best.ckpt"), "policy.onnx"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: out: 'policy.onnx' was given; allowed: .pt2, or .onnx with onnxscript and "
        'onnxruntime, which pip install -e ".[export]" brings'
    )


@pytest.fixture
def store(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    uri = f"sqlite:///{run.folder}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setattr(sys, "path", list(sys.path))  # a model's code is put on it
    return MlflowClient(uri)


def test_a_run_registers_its_policy_with_mlflow(run: Run, store: MlflowClient) -> None:
    """As the line says that the run has ended with: batches of the task's own observations."""
    found = re.fullmatch(
        r"the policy: mlflow\.pyfunc\.load_model\('(\S+)'\)\.predict\(observations\)", run.lines[-2]
    )
    assert found is not None and found[1] == "models:/SAC-InvertedPendulum-v5/1"
    model = mlflow.pyfunc.load_model(found[1])
    for rows in (1, 5):
        batch = observations(rows).astype(np.float64)
        actions = model.predict(batch)
        assert isinstance(actions, np.ndarray) and actions.dtype == np.float32
        np.testing.assert_allclose(
            actions, expected(run.checkpoints / "last.ckpt", batch), rtol=1e-5, atol=1e-6
        )
    (given,), (returned,) = (
        schema.to_dict()
        for schema in (model.metadata.signature.inputs, model.metadata.signature.outputs)
    )
    assert given["tensor-spec"] == {"dtype": "float64", "shape": (-1, 4)}
    assert returned["tensor-spec"] == {"dtype": "float32", "shape": (-1, 1)}
    with pytest.raises(MlflowException, match=r"does not match expected shape \(-1, 4\)"):
        model.predict(np.zeros((2, 5)))


def test_the_registered_model_is_of_its_run_and_holds_no_pickled_code(
    run: Run, store: MlflowClient, tmp_path: Path
) -> None:
    version = store.get_model_version("SAC-InvertedPendulum-v5", "1")
    assert version.run_id == run.run_id
    recorded = store.get_run(run.run_id)
    assert recorded.info.status == "FINISHED"
    (output,) = recorded.outputs.model_outputs
    assert (f"models:/{output.model_id}", output.step) == (version.source, 40)
    address = f"runs:/{run.run_id}/SAC-InvertedPendulum-v5"
    folder = Path(mlflow.artifacts.download_artifacts(address, dst_path=str(tmp_path)))
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "code/policy_loader.py", "data/policy.pt2"} <= files
    assert not any(name.endswith((".pkl", ".pth")) for name in files)


def test_every_run_adds_a_version(
    run: Run, store: MlflowClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    changed = {**REGISTERED, "seed_everything": 1, "checkpoint.folder": "again"}
    again = execute("sac", run.folder, CONF / "sac.yaml", changed)
    assert "'models:/SAC-InvertedPendulum-v5/2'" in again.lines[-2]
    assert store.get_model_version("SAC-InvertedPendulum-v5", "2").run_id == again.run_id


def test_a_policy_that_cannot_be_registered_does_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that branches on what it observes cannot be exported."""
    mode = Actor.mode

    def branching(self: Actor, observation: torch.Tensor) -> torch.Tensor:
        return mode(self, observation if observation.sum() > 0 else -observation)

    monkeypatch.setattr(Actor, "mode", branching)
    run = execute("sac", tmp_path, CONF / "sac.yaml", REGISTERED)
    assert run.status == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "registered" in line]
    assert len(told) == 1 and "MLflow: Could not guard on data-dependent expression" in told[0]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert client.search_registered_models() == []
    assert client.search_logged_models(["1"]) == []
