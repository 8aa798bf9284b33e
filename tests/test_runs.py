"""What a run leaves behind: its last line, metrics, configuration, checkpoints and results."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lit_mbrl.callbacks
import pytest
import torch
import yaml
from lit_mbrl.callbacks import Results
from tiny import CONF, TINY, TINY_MODEL, Run, execute, learned, mean_entropy, options

from lit_mbrl.checkpoints import RUN
from lit_mbrl.errors import ConfigurationError
from lit_mbrl.fit import main
from lit_mbrl.recording import current_commit

PHASES = {"collect", "update", "fit", "imagine", "evaluate", "diagnose", "checkpoint"}
METRICS = {
    "eval/return_mean",
    "eval/return_std",
    "eval/episode_length",
    "time/wall_seconds",
    "train/episode_return",
    "critic/loss",
    "critic/value",
    "actor/loss",
    "actor/entropy",
    "temperature",
    "time/env_steps_per_second",
    "time/updates_per_second",
    *(f"time/share_{phase}" for phase in PHASES),
}
MODEL_METRICS = {
    "dynamics/holdout_mse",
    "dynamics/holdout_nll",
    "dynamics/epochs",
    "dynamics/prediction_error",
    "rollout/length",
    "rollout/imagined",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One working directory for all runs: a new MLflow store takes longer than a tiny run."""
    yield tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def mppve(folder: Path) -> Run:
    overrides = {**TINY, **TINY_MODEL, "results.folder": "results/mppve"}
    return execute("MPPVE", folder, CONF / "mppve.yaml", overrides)


@pytest.fixture(scope="module")
def mbpo(folder: Path) -> Run:
    overrides = {**TINY, **TINY_MODEL, "results.folder": "results/mbpo"}
    return execute("MBPO", folder, CONF / "mbpo.yaml", overrides)


@pytest.fixture(scope="module")
def sac(folder: Path) -> Run:
    return execute("SAC", folder, CONF / "sac.yaml", {**TINY, "results.folder": "results/sac"})


@pytest.fixture(params=["mppve", "mbpo", "sac"])
def run(request: pytest.FixtureRequest) -> Run:
    """Each algorithm's tiny run in turn."""
    made: Run = request.getfixturevalue(request.param)
    return made


def test_a_run_ends_with_its_return_and_how_to_look_at_it(run: Run) -> None:
    assert run.status == 0
    mean, std = run.metrics["eval/return_mean"][40], run.metrics["eval/return_std"][40]
    assert run.lines[-1] == (
        f"{run.algorithm} on InvertedPendulum-v5: final return {mean:.1f} ± {std:.1f} "
        f"at environment step 40. Look at run {run.run_id} with: "
        f"mlflow ui --backend-store-uri sqlite:///{run.folder}/mlflow.db"
    )


def test_metrics_have_their_names(run: Run) -> None:
    expected = METRICS if run.algorithm == "SAC" else METRICS | MODEL_METRICS
    # Lightning adds the epoch.
    assert set(run.metrics) - {"epoch"} == expected


def test_metrics_are_at_environment_steps(run: Run) -> None:
    """Each update of each optimizer moves Lightning's own step; none of that may show."""
    for name, values in run.metrics.items():
        steps = list(values)
        if name == "dynamics/prediction_error":  # of the model that was fitted before
            assert steps == [20, 40]
        elif name in MODEL_METRICS:
            assert steps[:2] == [0, 20]
            assert set(steps) <= {0, 20, 40}
        else:
            assert steps == [20, 40], name


def test_metrics_are_finite_and_plausible(run: Run) -> None:
    for name, values in run.metrics.items():
        assert all(math.isfinite(value) for value in values.values()), name
    for step in (20, 40):
        shares = [run.metrics[f"time/share_{phase}"][step] for phase in PHASES]
        assert all(share >= 0 for share in shares) and sum(shares) <= 1.01
        # How much is left for what has no phase depends on the machine; these take time on any.
        assert all(run.metrics[f"time/share_{phase}"][step] > 0 for phase in ("collect", "update"))
        rates = [run.metrics[f"time/{what}_per_second"][step] for what in ("env_steps", "updates")]
        assert rates[1] == pytest.approx(2 * rates[0])
    assert 0 < mean_entropy(run) < 1
    if run.algorithm != "SAC":
        assert run.metrics["rollout/length"][0] == 1
        # A rollout of one step is one window.
        assert run.metrics["rollout/imagined"][0] == 200


def test_the_configuration_is_stored_with_the_run(run: Run) -> None:
    """What the file says, with the command line's values over it."""
    wanted = yaml.safe_load((CONF / f"{run.algorithm.lower()}.yaml").read_text())
    for option, value in run.overrides.items():
        *groups, key = option.split(".")
        if groups == ["model"]:
            groups = ["model", "init_args"]
        section = wanted
        for group in groups:
            section = section.setdefault(group, {})
        section[key] = value
    assert_within(wanted, run.config)


def assert_within(wanted: Any, found: Any) -> None:
    """All of a nested dictionary is in another, which may have defaults besides."""
    if not isinstance(wanted, dict):
        assert found == wanted
        return
    for key, value in wanted.items():
        assert key in found
        assert_within(value, found[key])


def test_checkpoints_can_be_loaded_safely(run: Run) -> None:
    """The last one with all that a run goes on from, the best one with the weights."""
    for name in ("last", "last.previous", "best"):
        checkpoint = torch.load(run.checkpoints / f"{name}.ckpt", weights_only=True)
        weights = checkpoint["state_dict"]
        assert {key.split(".")[0] for key in weights} >= {"actor", "critic", "target_critic"}
        assert all(bool(value.isfinite().all()) for value in weights.values())
        assert checkpoint["hyper_parameters"]["hidden_sizes"] == [16, 16]
        if name == "best":
            assert "optimizer_states" not in checkpoint
        else:
            assert len(checkpoint["optimizer_states"]) == (3 if run.algorithm == "SAC" else 4)
            assert checkpoint[RUN]["env_step"] == {"last": 40, "last.previous": 20}[name]
            assert checkpoint[RUN]["data"]["replay"]["steps"] == 200 + checkpoint[RUN]["env_step"]
    left = {path.name for path in run.checkpoints.iterdir()}
    assert left == {"last.ckpt", "last.previous.ckpt", "best.ckpt", "lock"}


def test_results_are_written(run: Run) -> None:
    results = run.folder / "results" / run.algorithm.lower()
    assert {path.name for path in results.iterdir()} == {"seed0.csv", "seed0.yaml"}
    with (results / "seed0.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["env_step", "return_mean", "return_std", "episode_length", "wall_seconds"]
    assert list(rows[0]) == columns
    assert [int(row["env_step"]) for row in rows] == [20, 40]
    for row in rows:
        for column in columns[1:4]:
            logged = run.metrics[f"eval/{column}"][int(row["env_step"])]
            assert float(row[column]) == pytest.approx(logged, abs=1e-3)
    assert 0 < float(rows[0]["wall_seconds"]) < float(rows[1]["wall_seconds"])
    said = yaml.safe_load((results / "seed0.yaml").read_text())
    assert said["finished"] is True
    assert said["configuration"] == run.config
    assert {"command", "commit", "machine"} <= set(said)


def test_results_of_a_run_that_has_ended_are_not_written_over(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.folder)
    results = run.folder / "results" / run.algorithm.lower()
    before = {path: path.read_bytes() for path in (results / "seed0.csv", results / "seed0.yaml")}
    config = CONF / f"{run.algorithm.lower()}.yaml"
    assert main(["--config", str(config), *options(run.overrides)]) == 2
    assert "results.folder" in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())


def test_results_of_a_run_that_was_cut_short_may_be_written_over(tmp_path: Path) -> None:
    """Its own line tells, and not one of the same words within its configuration."""
    described = tmp_path / "seed0.yaml"
    described.write_text("finished: false\nconfiguration:\n  finished: true\n")
    Results(str(tmp_path)).make_folder(seed=0, goes_on=False)
    described.write_text("finished: true\nconfiguration:\n  finished: false\n")
    with pytest.raises(ConfigurationError, match=r"results\.folder"):
        Results(str(tmp_path)).make_folder(seed=0, goes_on=False)
    Results(str(tmp_path)).make_folder(seed=0, goes_on=True)


def test_the_stored_configuration_repeats_the_run(mppve: Run, tmp_path: Path) -> None:
    config = tmp_path / "stored.yaml"
    config.write_text(yaml.safe_dump(mppve.config))
    again = execute("MPPVE", mppve.folder, config, {"results.folder": str(tmp_path)})
    assert again.run_id != mppve.run_id
    assert learned(again) == learned(mppve)


def test_another_seed_gives_another_run(mppve: Run, tmp_path: Path) -> None:
    overrides = {**mppve.overrides, "seed_everything": 1, "results.folder": str(tmp_path)}
    other = execute("MPPVE", mppve.folder, CONF / "mppve.yaml", overrides)
    assert other.metrics["critic/loss"] != mppve.metrics["critic/loss"]
    assert other.metrics["train/episode_return"] != mppve.metrics["train/episode_return"]
    assert (tmp_path / "seed1.csv").exists()


def test_callbacks_of_another_checkout_are_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Run from a second checkout, Python would find them where lit_mbrl is installed."""
    if current_commit().endswith(("unknown", "-dirty")):
        pytest.skip("no checkout, or a changed one")
    monkeypatch.setattr(lit_mbrl.callbacks, "__file__", str(tmp_path / "__init__.py"))
    assert current_commit().endswith("-dirty")
