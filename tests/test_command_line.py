"""What the command line offers: help, completion, and values from files and options."""

import subprocess
from pathlib import Path

import pytest
import yaml
from tiny import CONF

from lit_mbrl.fit import build, main

MPPVE = ["--config", str(CONF / "mppve.yaml")]
pytestmark = pytest.mark.usefixtures("elsewhere")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_the_printed_configuration_gives_the_same_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With every default, and a file that gives the same run."""
    hopper = ["--config", str(CONF / "mppve" / "hopper.yaml"), "--model.plan_length", "2"]
    with pytest.raises(SystemExit) as exit_:
        main([*MPPVE, *hopper, "--print_config"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["model"]["init_args"]["plan_length"] == 2
    file = tmp_path / "printed.yaml"
    file.write_text(printed)
    again, first = (
        build([*words, "--trainer.logger", "false"]).config.as_dict()
        for words in (["--config", str(file)], [*MPPVE, *hopper])
    )
    assert {**again, "config": None} == {**first, "config": None}


def test_a_shell_completes_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--print_shtab", "bash"])
    script = capsys.readouterr().out
    typed = 'COMP_WORDS=(fit --data.batch_); COMP_CWORD=1; _shtab_fit; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash"], input=script + typed, capture_output=True, text=True)
    assert done.stdout.split() == ["--data.batch_size"]


def test_later_values_override(tmp_path: Path) -> None:
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


def test_negative_numbers_may_have_exponents() -> None:
    assert build([*MPPVE, "--model.target_entropy", "-1e-2"]).model.target_entropy == -0.01 * 3


@pytest.mark.parametrize(("limit", "told"), [("-1", True), ("500", False)])
def test_a_task_without_a_time_limit_is_named(
    limit: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    build([*MPPVE, "--data.env_kwargs.max_episode_steps", limit, "--trainer.logger", "false"])
    lines = capsys.readouterr().err.splitlines()
    assert (
        any("InvertedPendulum-v5 is registered without a time limit" in line for line in lines)
        == told
    )
