"""What is seen of a run while it trains."""

import re
import sys
from pathlib import Path

import pytest
from tiny import CONF, TINY, TINY_MODEL, Terminal, options

from lit_mbrl.fit import main

ARGUMENTS = ["--config", str(CONF / "mppve.yaml"), *options({**TINY, **TINY_MODEL})]


def test_a_bar_on_a_terminal_says_how_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps, time left, steps per second, returns, model error and rollout length."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fit"])
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert main([*ARGUMENTS, "--trainer.logger", "false"]) == 0
    assert "environment step 20:" not in capsys.readouterr().out
    last = terminal.getvalue().rstrip().rpartition("\r")[2]
    assert re.fullmatch(
        r"100%\|.*\| 40/40 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+ ?(env steps/s|s/env steps), "
        r"episode=\d+\.\d, return=\d+\.\d, model_error=[\d.e-]+, rollout=\d\]",
        last,
    ), last


def test_a_line_for_each_evaluation_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fit"])
    assert main([*ARGUMENTS, "--trainer.logger", "false"]) == 0
    out, err = capsys.readouterr()
    assert "%|" not in err
    line = r"environment step {}: return \d+\.\d ± \d+\.\d, \d+\.\d steps/s"
    for shown, step in zip(out.splitlines(), (20, 40), strict=False):
        assert re.fullmatch(line.format(step), shown)
