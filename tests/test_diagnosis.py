"""The diagnosis of the model: pure functions, the command, a run that logs the values' bias too."""

import json
import math
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient
from tensordict import TensorDict
from tiny import CONF, TINY, TINY_MODEL, Run, execute, learned
from torch import Tensor

from lit_mbrl.diagnose import main
from lit_mbrl.diagnosis import (
    LEVELS,
    calibration_error,
    coverage,
    deviation_scale,
    longest_episode,
    mixture,
    quartiles,
    rollout_errors,
    standardised_error,
)
from lit_mbrl.fit import build

MODEL_METRICS = {
    "dynamics/one_step_error",
    "dynamics/calibration_error",
    "dynamics/recalibrated_error",
    "dynamics/disagreement_correlation",
    "dynamics/rollout_error",
}
BIAS_METRICS = {
    f"critic/{kind}_{part}" for kind in ("bias", "soft_bias") for part in ("mean", "std")
}


def gaussians(rows: int, factor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions whose deviations are `factor` times the true ones, and targets [rows, 2]."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(rows, 2, generator=generator)
    std = torch.rand(rows, 2, generator=generator) + 0.5
    target = mean + std * torch.randn(rows, 2, generator=generator)
    return mean, factor * std, target


def test_a_calibrated_gaussian_has_no_calibration_error() -> None:
    found = coverage(*gaussians(40_000, 1.0))
    assert found.shape == (len(LEVELS), 2)
    assert calibration_error(found) < 0.005


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_deviation_has_the_calibration_error_of_the_normal_distribution(
    factor: float,
) -> None:
    normal = torch.distributions.Normal(0.0, 1.0)
    halfwidths = normal.icdf((1 + LEVELS) / 2)
    covered = 2 * normal.cdf(factor * halfwidths) - 1
    expected = float((covered - LEVELS).abs().mean())
    assert expected > 0.15
    found = coverage(*gaussians(40_000, factor))
    assert calibration_error(found) == pytest.approx(expected, abs=0.005)
    assert ((found[9] < LEVELS[9]) == (factor < 1)).all(), "too narrow intervals hold too little"


def test_recalibration_finds_the_factor_of_each_output() -> None:
    mean, std, target = gaussians(40_000, 0.5)
    std[:, 1] *= 8
    scale = deviation_scale(mean, std, target)
    assert scale.tolist() == pytest.approx([2.0, 0.25], rel=0.02)
    assert calibration_error(coverage(mean, std * scale, target)) < 0.01


def test_a_mixture_has_the_moments_of_its_samples() -> None:
    means, variances = torch.tensor([[[0.0]], [[3.0]]]), torch.tensor([[[1.0]], [[4.0]]])
    mean, std = mixture(means, variances)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 200_000, generator=generator)
    samples = (means.view(2, 1) + variances.view(2, 1).sqrt() * noise).flatten()
    assert mean.item() == pytest.approx(float(samples.mean()), abs=0.02)
    assert std.item() == pytest.approx(float(samples.std()), abs=0.02)


def test_standardised_error_of_the_mean_is_one_and_of_the_truth_zero() -> None:
    _, _, target = gaussians(1000, 1.0)
    target = torch.cat([target * 7 + 3, torch.ones(1000, 1)], 1)  # a constant keeps its scale
    predictions = torch.stack([target.mean(0).expand_as(target), target])
    found = standardised_error(predictions, target)
    assert found.tolist() == [pytest.approx([1.0, 1.0, 0.0], abs=1e-5), [0.0, 0.0, 0.0]]
    assert standardised_error(target + 0.5, target)[2].item() == pytest.approx(0.5)


def law(observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A made-up task of two observations and one action."""
    following = torch.stack([observation[:, 1], 0.9 * observation[:, 0] + action[:, 0]], 1)
    return following, following.sum(1), following[:, 0] > 1e9


def episodes(lengths: list[list[int]]) -> TensorDict:
    """Transitions [C, T] of `law`, a row for each copy, of episodes of these lengths."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for row in lengths:
        steps: list[TensorDict] = []
        for length in row:
            observation = torch.randn(1, 2, generator=generator)
            for step in range(length):
                action = torch.randn(1, 1, generator=generator)
                following, reward, terminated = law(observation, action)
                done = torch.tensor([step == length - 1])
                after = {"observation": following, "terminated": terminated, "done": done}
                here = {"observation": observation, "action": action, "reward": reward}
                steps.append(TensorDict({**here, "next": after}, batch_size=[1]))
                observation = following
        rows.append(torch.cat(steps))
    return torch.stack(rows)


def test_a_model_that_is_the_truth_has_no_rollout_error() -> None:
    real = episodes([[4, 9, 2], [15]])
    errors, alive = rollout_errors(real, 6, law)
    assert errors.shape == alive.shape == (30, 6)
    # Of an episode of n steps, n - h + 1 states are followed for h steps.
    expected = [sum(max(n - h + 1, 0) for n in (4, 9, 2, 15)) for h in range(1, 7)]
    assert alive.sum(0).tolist() == expected
    assert (errors[alive] == 0).all()
    assert (errors[~alive] > 0).any(), "behind an episode's end there is another"


def test_the_error_of_a_rollout_is_that_of_a_naive_loop() -> None:
    def wrong(observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        following, reward, terminated = law(observation, action)
        return following + 0.1, reward, terminated

    real = episodes([[20], [8, 12]])
    errors, alive = rollout_errors(real, 5, wrong)
    deviation = real["observation"].flatten(0, 1).std(0, correction=0)
    for row, first in ((0, 3), (1, 0), (1, 10)):
        state = real["observation"][row, first : first + 1]
        for h in range(5):
            state = wrong(state, real["action"][row, first + h : first + h + 1])[0]
            difference = (state[0] - real["next", "observation"][row, first + h]) / deviation
            naive = math.sqrt(float(difference.square().mean()))
            assert errors[20 * row + first, h].item() == pytest.approx(naive, rel=1e-4)
    assert not alive[20 + 7, 1] and alive[20 + 7, 0]


def test_quartiles_are_of_the_valid() -> None:
    values = torch.tensor([[0.0, 9.0], [1.0, 9.0], [2.0, 9.0], [3.0, 9.0], [4.0, 9.0], [99.0, 9.0]])
    valid = torch.tensor([[True, False]] * 5 + [[False, False]])
    found = quartiles(values, valid)
    assert found[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert found[:, 1].isnan().all()


def test_the_longest_episode_is_taken() -> None:
    real = episodes([[4, 9, 2], [7, 8]])
    found = longest_episode(real)
    assert torch.equal(found["observation"], real["observation"][0, 4:13])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


SMALL = {**TINY, **TINY_MODEL, "data.env_id": "Hopper-v5", "rollout_length.end": 3}


@pytest.fixture(scope="module")
def plain(folder: Path) -> Run:
    return execute("mppve", folder, CONF / "mppve.yaml", SMALL)


@pytest.fixture(scope="module")
def diagnosed(folder: Path) -> Run:
    asked = {"diagnosis.every": 20, "diagnosis.transitions": 400, "evaluation.value_bias": True}
    return execute("mppve", folder, CONF / "mppve.yaml", {**SMALL, **asked})


def test_looking_into_the_model_leaves_the_run_as_it_is(plain: Run, diagnosed: Run) -> None:
    without, within = learned(plain), learned(diagnosed)
    assert set(within) - set(without) == MODEL_METRICS | BIAS_METRICS
    assert {name: within[name] for name in without} == without
    first, second = (
        torch.load(run.checkpoints / "last.ckpt", weights_only=True) for run in (plain, diagnosed)
    )
    for name, value in first["state_dict"].items():
        assert torch.equal(second["state_dict"][name], value), name


def test_metrics_are_logged_when_due(diagnosed: Run) -> None:
    for name in MODEL_METRICS | BIAS_METRICS:
        assert list(diagnosed.metrics[name]) == [20, 40]
        assert all(math.isfinite(value) for value in diagnosed.metrics[name].values())


def test_figures_are_artifacts_of_the_run(diagnosed: Run, tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{diagnosed.folder}/mlflow.db")
    for step in (20, 40):
        path = f"figures/step_{step}"
        names = {Path(entry.path).name for entry in client.list_artifacts(diagnosed.run_id, path)}
        assert names == {"diagnosis.png", "diagnosis.json"}
        stored = client.download_artifacts(
            diagnosed.run_id, f"{path}/diagnosis.json", str(tmp_path)
        )
        numbers = json.loads(Path(stored).read_text())
        for name in MODEL_METRICS:
            assert numbers[name] == diagnosed.metrics[name][step]


def test_the_command_finds_what_the_run_has_logged(
    diagnosed: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same model, transitions and rollouts; the checkpoint knows the longest of them."""
    checkpoint = diagnosed.checkpoints / "last.ckpt"
    assert main([str(checkpoint), "--transitions", "400", "--output", str(tmp_path / "new")]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    about = "MPPVE on Hopper-v5, environment step 40: 400 held-out transitions, seed 0"
    assert (first, lines[-1]) == (about, f"figures: {tmp_path / 'new' / 'diagnosis.png'}")
    numbers = json.loads((tmp_path / "new" / "diagnosis.json").read_text())
    assert {name: numbers[name] for name in MODEL_METRICS} == {
        name: diagnosed.metrics[name][40] for name in MODEL_METRICS
    }
    assert len(numbers["one_step_error_by_output"]) == 12
    assert len(numbers["one_step_error_by_elite"]) == 2
    assert numbers["rollout_error_by_step"]["rollouts"][0] == 400
    assert len(numbers["rollout_error_by_step"]["median"]) == 3
    image = (tmp_path / "new" / "diagnosis.png").read_bytes()
    assert image.startswith(b"\x89PNG") and len(image) > 50_000


def test_what_the_command_cannot_use_is_one_line(
    diagnosed: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, last = (str(diagnosed.checkpoints / f"{name}.ckpt") for name in ("best", "last"))
    (tmp_path / "file").touch()
    few = ["--transitions", "400"]
    sac = execute("sac", folder, CONF / "sac.yaml", TINY).checkpoints / "last.ckpt"
    for arguments, expected in (
        ([str(sac)], f"checkpoint: '{sac}' was given; allowed: one of an algorithm that learns"),
        ([best], "rollout_length: None was given; allowed: an integer of at least 1"),
        ([last, "--rollout_length", "0"], "rollout_length: 0 was given; allowed: an integer"),
        ([last, "--transitions", "399"], "transitions: 399 was given; allowed: a multiple of 4"),
        ([last, "--seed", "-1"], "seed: -1 was given; allowed: an integer from 0"),
        (
            [last, *few, "--output", str(tmp_path / "file")],
            f"output: '{tmp_path / 'file'}' was given (File exists); allowed: a folder",
        ),
    ):
        capsys.readouterr()
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith(f"error: {expected}"), line


def test_a_run_without_a_model_cannot_be_diagnosed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"diagnosis\.every: 20 was given; allowed: 0 for SAC"):
        build(["--config", str(CONF / "sac.yaml"), "--diagnosis.every", "20"])


def test_a_diagnosis_that_fails_does_not_fail_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "lit_mbrl.diagnosis_page.diagnosis_page",
        lambda *_: (_ for _ in ()).throw(OSError("no room")),
    )
    asked = {"diagnosis.every": 40, "diagnosis.transitions": 400}
    run = execute("mppve", folder, CONF / "mppve.yaml", {**SMALL, **asked})
    assert run.status == 0 and 40 in run.metrics["dynamics/calibration_error"]
    assert "no diagnosis at environment step 40: no room" in capsys.readouterr().err
