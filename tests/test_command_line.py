"""The command line: what it refuses, and what a run leaves behind."""

import contextlib
import csv
import io
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient

from lit_mbrl.fit import build, main

CONF = Path(__file__).parents[1] / "conf"
MPPVE = ["--config", str(CONF / "mppve.yaml")]
MBPO = ["--config", str(CONF / "mbpo.yaml")]
SAC = ["--config", str(CONF / "sac.yaml")]

USERS_MODULE = """
import gymnasium
from gymnasium.spaces import Box

from lit_mbrl.algorithms import SAC


class Toy(gymnasium.Env):
    def __init__(self, observations=(3,), largest_action=1.0):
        self.observation_space = Box(-1, 1, observations)
        self.action_space = Box(-largest_action, largest_action, (2,))


class Broken(SAC):
    def __init__(self, observation_size: int, action_size: int):
        raise KeyError("a bug")


gymnasium.register("Images-v0", Toy, kwargs={"observations": (8, 8, 3)})
gymnasium.register("Unbounded-v0", Toy, kwargs={"largest_action": float("inf")})
"""


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a user's own module on the path."""
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


def assert_refused(status: int, out: str, err: str, expected: tuple[str, ...]) -> None:
    """One line that names the option first, what was given and what is allowed; and no run."""
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith(f"error: {expected[0]}"), err
    for words in expected[1:]:
        assert words in err
    assert list(Path.cwd().iterdir()) == []


# The first words are those that the line begins with: the option.
REFUSED = {
    "unknown option": ([*MPPVE, "--nothing", "3"], ("nothing: no such option",)),
    "misspelt option": (
        [*MPPVE, "--data.bach_size", "3"],
        ("data.bach_size: no such option", "data.batch_size"),
    ),
    "misspelt group": (
        [*MPPVE, "--evalution.every", "3"],
        ("evalution.every: no such option", "evaluation.every"),
    ),
    "misspelt option of an algorithm": (
        [*MPPVE, "--model.plan_lenght", "3"],
        ("model.plan_lenght: no such option", "plan_length?"),
    ),
    "stray word": ([*MPPVE, "stray"], ("stray: no such option",)),
    "option without a value": ([*MPPVE, "--data.env_id"], ("data.env_id:", "expected one")),
    "wrong type": ([*MPPVE, "--data.batch_size", "many"], ("data.batch_size:", "'many'", "int")),
    "wrong type in an algorithm": (
        [*MPPVE, "--model.plan_length", "2.5"],
        ("model.plan_length:", "'2.5'", "int"),
    ),
    "wrong type in a list": (
        [*MPPVE, "--model.hidden_sizes", "[wide]"],
        ("model.hidden_sizes:", "'wide'", "int"),
    ),
    "wrong type of several": ([*MPPVE, "--seed_everything", "a"], ("seed_everything:", "'a'")),
    "negative seed": ([*MPPVE, "--seed_everything", "-5"], ("seed_everything: -5", "0 to")),
    "no seed": ([*MPPVE, "--seed_everything", "true"], ("data.seed: 'True'", "int")),
    "no layers": ([*MPPVE, "--model.hidden_sizes", "[]"], ("model.hidden_sizes: []",)),
    "empty layer": ([*MPPVE, "--model.hidden_sizes", "[0]"], ("model.hidden_sizes: [0]",)),
    "learning rate": (
        [*MPPVE, "--model.learning_rate", "-1"],
        ("model.learning_rate: -1.0", "a number > 0"),
    ),
    "target rate": ([*MPPVE, "--model.target_rate", "2"], ("model.target_rate: 2.0", "(0, 1]")),
    "gradient norm": ([*MPPVE, "--model.actor_max_norm", "-1"], ("model.actor_max_norm: -1.0",)),
    "patience": ([*MPPVE, "--model.fit_patience", "0"], ("model.fit_patience: 0",)),
    "learned temperature of zero": (
        [*MPPVE, "--model.initial_temperature", "0"],
        ("model.initial_temperature: 0.0", "target_entropy is null"),
    ),
    "no configuration": ([], ("", "missing; see --config")),
    "no algorithm": (["--data.env_id", "Hopper-v5"], ("model: missing", "--config")),
    "missing file": (["--config", "missing.yaml"], ("config:", "not exist", "missing.yaml")),
    "unknown algorithm": (
        [*MPPVE, "--model", "lit_mbrl.algorithms.Nope"],
        ("model:", "'lit_mbrl.algorithms.Nope'", "lit_mbrl.algorithms.MPPVE"),
    ),
    "no algorithm of ours": (
        [*MPPVE, "--model", "torch.nn.Linear"],
        ("model:", "torch.nn.Linear", "Agent"),
    ),
    "unknown task": ([*MPPVE, "--data.env_id", "Nope-v5"], ("data.env_id: 'Nope-v5'", "registry")),
    "misspelt task": ([*MPPVE, "--data.env_id", "Hoper-v5"], ("data.env_id:", "Hopper-v5")),
    "unknown module of a task": (
        [*MPPVE, "--data.env_id", "no_module:Toy-v0"],
        ("data.env_id: 'no_module:Toy-v0'", "'module:Name-v0'"),
    ),
    "discrete actions": (
        [*MPPVE, "--data.env_id", "CartPole-v1"],
        ("data.env_id: 'CartPole-v1'", "actions are vectors", "Discrete(2)"),
    ),
    "image observations": (
        [*MPPVE, "--data.env_id", "users_module:Images-v0"],
        ("data.env_id: 'users_module:Images-v0'", "observations are vectors", "(8, 8, 3)"),
    ),
    "unbounded actions": (
        [*MPPVE, "--data.env_id", "users_module:Unbounded-v0"],
        ("data.env_id: 'users_module:Unbounded-v0'", "finite bounds", "inf"),
    ),
    "unknown argument of a task": (
        [*MPPVE, "--data.env_kwargs", "{nope: 1}"],
        ("data.env_kwargs: {'nope': 1}", "constructor of InvertedPendulum-v5"),
    ),
    "no termination": (
        [*MPPVE, "--data.env_id", "Pendulum-v1"],
        ("data.termination: None", "'never'"),
    ),
    "termination that is not there": (
        [*MPPVE, "--data.termination", "nowhere.ends"],
        ("data.termination: 'nowhere.ends'", "'never'", "lit_mbrl.envs.termination.hopper"),
    ),
    "real ratio below 0": (
        [*MPPVE, "--data.real_ratio", "-0.1"],
        ("data.real_ratio: -0.1", "[0, 1]"),
    ),
    "real ratio above 1": (
        [*MPPVE, "--data.real_ratio", "1.5"],
        ("data.real_ratio: 1.5", "[0, 1]"),
    ),
    "batch larger than the buffer": (
        [*MPPVE, "--data.warmup_steps", "255"],
        ("data.warmup_steps: 255", "data.batch_size (256)"),
    ),
    "end before start": (
        [*MPPVE, "--rollout_length.start_step", "2000"],
        ("rollout_length.end_step: 1000", "rollout_length.start_step (2000)"),
    ),
    "more elites than networks": (
        [*MPPVE, "--model.dynamics_elites", "8"],
        ("model.dynamics_elites: 8", "model.dynamics_networks (7)"),
    ),
    "weight decay of too few layers": (
        [*MPPVE, "--model.dynamics_weight_decay", "[0, 0]"],
        ("model.dynamics_weight_decay: [0.0, 0.0]", "5 numbers"),
    ),
    "two devices": (
        [*MPPVE, "--trainer.accelerator", "cpu", "--trainer.devices", "2"],
        ("trainer.devices: 2", "1, for the time being"),
    ),
    "unknown accelerator": (
        [*MPPVE, "--trainer.accelerator", "abacus"],
        ("trainer:", "accelerator='abacus'", "cpu"),
    ),
    "gradient steps": (
        [*MPPVE, "--trainer.max_steps", "100"],
        ("trainer.max_steps: 100", "-1", "trainer.max_epochs"),
    ),
    "no epoch": ([*MPPVE, "--trainer.max_epochs", "0"], ("trainer.max_epochs: 0", "at least 1")),
    "retraining without a model": (
        [*SAC, "--retraining.every", "250"],
        ("retraining.every: 250", "0 for SAC"),
    ),
    "imagined data without retraining": (
        [*MBPO, "--retraining.every", "0"],
        ("data.real_ratio: 0.05", "retraining.every > 0"),
    ),
    "no real data for the actor": (
        [*MPPVE, "--data.real_ratio", "0"],
        ("data.real_ratio:", "0 real rows", "MPPVE"),
    ),
    **{
        f"{option} {given}": ([*MPPVE, f"--{option}", given], (f"{option}: {given}", "at least 1"))
        for option, given in [
            ("model.plan_length", "0"),
            ("model.plan_length", "-2"),
            ("model.critics", "0"),
            ("data.batch_size", "0"),
            ("rollout_length.start", "-1"),
            ("rollout_length.end", "0"),
            ("retraining.rollouts", "0"),
            ("evaluation.every", "0"),
            ("evaluation.episodes", "0"),
            ("throughput.every", "0"),
        ]
    },
    **{
        f"{option} {given}": ([*MPPVE, f"--{option}", given], (f"{option}: {given}", ">= "))
        for option, given in [
            ("data.updates_per_step", "0"),
            ("data.steps_per_epoch", "-1"),
            ("rollout_length.start_step", "-1"),
            ("retraining.every", "-5"),
            ("checkpoint.every", "-1"),
        ]
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(
    case: str, empty: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    arguments, expected = REFUSED[case]
    status = main(arguments)
    assert_refused(status, *capsys.readouterr(), expected)
    # Outside pytest a warning would be another line.
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: {bach_size: 3}", ("data.bach_size: no such option", "data.batch_size")),
        ("trainr: {max_epochs: 3}", ("trainr.max_epochs: no such option", "trainer.max_epochs")),
        ("model: {init_args: {plan_lenght: 3}}", ("model.plan_lenght: no such", "plan_length?")),
        ("data: [1", ("", "parsing", "line 1")),
    ],
)
def test_bad_file_is_one_line(
    text: str,
    expected: tuple[str, ...],
    empty: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    status = main([*MPPVE, "--config", str(file)])
    assert_refused(status, *capsys.readouterr(), expected)


@pytest.mark.parametrize("case", ["misspelt option of an algorithm", "misspelt task"])
def test_bad_input_in_a_process_of_its_own(case: str, empty: Path) -> None:
    arguments, expected = REFUSED[case]
    command = [sys.executable, "-m", "lit_mbrl.fit", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert_refused(done.returncode, done.stdout, done.stderr, expected)


def test_a_bug_in_an_algorithm_keeps_its_traceback(empty: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    data = {"env_id": "Hopper-v5", "real_ratio": 1.0}
    file.write_text(yaml.safe_dump({"model": "users_module.Broken", "data": data}))
    with pytest.raises(KeyError, match="a bug"):
        main(["--config", str(file)])


def test_help(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "python -m lit_mbrl.fit --config conf/mppve.yaml" in out
    for option in [
        "config",
        "seed_everything",
        "trainer.max_epochs",
        "model",
        "data.env_id",
        "rollout_length.end",
        "retraining.every",
        "evaluation.episodes",
        "checkpoint.every",
        "throughput.every",
        "results.folder",
    ]:
        assert f"--{option}" in out


def test_later_values_override(empty: Path, tmp_path: Path) -> None:
    """A task is a second file over the first, and the command line's values are over both."""
    task = tmp_path / "task.yaml"
    changed = {
        "data": {"env_id": "Hopper-v5", "updates_per_step": 7},
        "model": {"init_args": {"plan_length": 5, "target_entropy": -1.5}},
        "rollout_length": {"end": 4},
    }
    task.write_text(yaml.safe_dump(changed))
    values = ["--model.plan_length", "2", "--rollout_length.end", "3", "--trainer.logger", "false"]
    cli = build([*MPPVE, "--config", str(task), *values])
    assert cli.datamodule.env_id == "Hopper-v5"  # the second file's
    assert cli.datamodule.updates_per_step == 7
    assert cli.model.hparams["target_entropy"] == -1.5
    assert cli.model.plan_length == 2  # the command line's
    assert cli.config["rollout_length"]["end"] == 3
    assert cli.datamodule.batch_size == 256  # the first file's
    assert cli.model.hparams["observation_size"] == 11  # the task's
    assert cli.model.hparams["termination"] == "lit_mbrl.envs.termination.hopper"


# A run of two fits, two evaluations and two logs, as small as one can be.
TINY: dict[str, Any] = {
    "model.hidden_sizes": [16, 16],
    "data.batch_size": 32,
    "data.updates_per_step": 2,
    "data.warmup_steps": 200,
    "data.steps_per_epoch": 40,
    "evaluation.every": 20,
    "evaluation.episodes": 2,
    "checkpoint.every": 20,
    "throughput.every": 20,
    "trainer.max_epochs": 1,
    "trainer.log_every_n_steps": 20,
    "trainer.accelerator": "cpu",
}
TINY_MODEL: dict[str, Any] = {
    "model.dynamics_hidden_sizes": [16, 16],
    "model.dynamics_weight_decay": [0.0, 0.0, 0.0],
    "model.dynamics_networks": 3,
    "model.dynamics_elites": 2,
    "data.real_ratio": 0.25,
    "retraining.every": 20,
    "retraining.rollouts": 200,
    "retraining.retain_steps": 40,
}
PHASES = {"collect", "update", "fit", "imagine", "evaluate", "checkpoint"}
METRICS = {
    "eval/return_mean",
    "eval/return_std",
    "eval/episode_length",
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
    "rollout/length",
    "rollout/imagined",
}

History = dict[str, dict[int, float]]


@dataclass
class Run:
    """What a finished run has left: `metrics` are values by name and environment step."""

    algorithm: str
    status: int
    lines: list[str]
    folder: Path
    run_id: str
    overrides: dict[str, Any]
    config: dict[str, Any]
    metrics: History

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints" / self.run_id


def options(values: dict[str, Any]) -> list[str]:
    return [word for key, value in values.items() for word in (f"--{key}", str(value))]


def execute(algorithm: str, folder: Path, config: Path, overrides: dict[str, Any]) -> Run:
    """Train in `folder` and read the run back from its MLflow store."""
    out = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
    ):
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(sys, "argv", ["fit"])
        status = main(["--config", str(config), *options(overrides)])
    lines = out.getvalue().splitlines()
    found = re.search(r"run (\w{32})", lines[-1])
    assert found, lines
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    stored = client.download_artifacts(found[1], "config.yaml", str(folder))
    metrics = {
        name: {entry.step: entry.value for entry in client.get_metric_history(found[1], name)}
        for name in client.get_run(found[1]).data.metrics
    }
    text = Path(stored).read_text()
    run_config = yaml.safe_load(text)
    return Run(algorithm, status, lines, folder, found[1], overrides, run_config, metrics)


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
        if name in MODEL_METRICS:
            assert steps[:2] == [0, 20]
            assert set(steps) <= {0, 20, 40}
        else:
            assert steps == [20, 40], name


def test_metrics_are_finite_and_plausible(run: Run) -> None:
    for name, values in run.metrics.items():
        assert all(math.isfinite(value) for value in values.values()), name
    for step in (20, 40):
        shares = [run.metrics[f"time/share_{phase}"][step] for phase in PHASES]
        assert all(share >= 0 for share in shares)
        assert 0.5 < sum(shares) <= 1.01
        rates = [run.metrics[f"time/{what}_per_second"][step] for what in ("env_steps", "updates")]
        assert rates[1] == pytest.approx(2 * rates[0])
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
    for name in ("last.ckpt", "best.ckpt"):
        checkpoint = torch.load(run.checkpoints / name, weights_only=True)
        weights = checkpoint["state_dict"]
        assert {key.split(".")[0] for key in weights} >= {"actor", "critic", "target_critic"}
        assert all(bool(value.isfinite().all()) for value in weights.values())
        assert len(checkpoint["optimizer_states"]) == (3 if run.algorithm == "SAC" else 4)
    assert len(list(run.checkpoints.iterdir())) == 2


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


def learned(run: Run) -> History:
    """The metrics that do not tell the time."""
    return {name: values for name, values in run.metrics.items() if not name.startswith("time/")}


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
