"""Refusals of what files hold: no YAML, unknown options, classes that cannot be trained."""

from pathlib import Path

import pytest
import yaml
from refusals import MPPVE, assert_refused

from lit_mbrl.fit import main


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: {bach_size: 3}", ("data.bach_size: no such option", "data.batch_size")),
        ("trainr: {max_epochs: 3}", ("trainr.max_epochs: no such option", "trainer.max_epochs")),
        ("model: {init_args: {plan_lenght: 3}}", ("model.plan_lenght: no such", "plan_length?")),
        ("data: [1", ("config:", "bad.yaml", "line 1", "YAML")),
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


def test_an_algorithm_that_cannot_act_is_refused(
    empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "aimless.yaml"
    data = {"env_id": "Hopper-v5", "real_ratio": 1.0}
    file.write_text(yaml.safe_dump({"model": "users_module.Aimless", "data": data}))
    status = main(["--config", str(file), "--trainer.max_epochs", "1"])
    assert_refused(status, *capsys.readouterr(), ("model: 'Aimless' was given", "`actor`", "`act`"))


def test_a_bug_in_an_algorithm_keeps_its_traceback(empty: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    data = {"env_id": "Hopper-v5", "real_ratio": 1.0}
    file.write_text(yaml.safe_dump({"model": "users_module.Broken", "data": data}))
    with pytest.raises(KeyError, match="a bug"):
        main(["--config", str(file)])


def test_a_broken_file_within_a_file_is_the_one_that_is_named(
    empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.yaml").write_text("env_id: [1")
    file = tmp_path / "whole.yaml"
    file.write_text("data: broken.yaml")
    status = main([*MPPVE, "--config", str(file)])
    assert_refused(status, *capsys.readouterr(), ("data:", "broken.yaml", "line 1"))


def test_a_file_that_is_no_text_is_one_line(
    empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "binary.yaml"
    file.write_bytes(bytes(range(128, 256)))
    status = main(["--config", str(file)])
    assert_refused(status, *capsys.readouterr(), ("config:", "binary.yaml", "UTF-8"))
