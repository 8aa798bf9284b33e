"""The report refuses what it cannot do, in one line."""

from pathlib import Path

import pytest
from report_page import write

from lit_mbrl.report.__main__ import main

pytestmark = pytest.mark.filterwarnings("error:::lit_mbrl.report")

REFUSED = {
    "no such folder": (["--results", "nowhere"], "results: 'nowhere' was given"),
    "a folder without results": (["--results", "empty"], "results: 'empty' was given"),
    "both sources": (["--results", "results", "--tracking_uri", "x"], "tracking_uri: 'x' was"),
    "no store": ([], "tracking_uri: 'sqlite:///"),
    "no server": (["--tracking_uri", "http://127.0.0.1:9"], "tracking_uri: 'http://127.0.0.1:9'"),
    "not a store": (["--tracking_uri", "sqlite:///file"], "tracking_uri: 'sqlite:///file'"),
    "no such algorithm": (
        ["--results", "results", "--algorithms", "mppve", "mbpo"],
        "algorithms: 'mbpo' was given; allowed: a pattern that matches some of MPPVE, MPPVE-bf16",
    ),
    "no such task": (["--results", "results", "--tasks", "Ant*"], "tasks: 'Ant*' was given"),
    "no run left": (
        ["--results", "results", "--algorithms", "mppve", "--tasks", "Inv*"],
        "tasks: 'Inv*' was given; allowed: a pattern that matches some of Hopper-v5",
    ),
    "no such tag": (["--results", "results", "--tags.x", "1"], "tags.x: '1' was given"),
    "a threshold of another task": (
        ["--results", "results", "--thresholds.Hopper-v4", "1"],
        "thresholds: 'Hopper-v4' was given; allowed: a task of the report: Hopper-v5",
    ),
    "a threshold in words": (
        ["--results", "results", "--thresholds.Hopper-v5", "high"],
        "thresholds: 'high' was given; allowed: float",
    ),
    "a file for a folder": (["--results", "results", "--output", "file"], "output: 'file' was"),
    "a misspelt option": (["--results", "results", "--outptu", "y"], "outptu: no such option; did"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line(
    case: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    Path("file").write_text("text")
    arguments, expected = REFUSED[case]
    before = sorted(Path().rglob("*"))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith(f"error: {expected}"), err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "seed0.csv": "env_step,return_mean,wall_seconds\n1000,high,3\n",
        "seed1.csv": "step,return\n1,2\n",
        "seed2.yaml": "finished: [\n",
        "seed3.yaml": "finished: true\n",
        "seed4.yaml": None,
    }.items(),
)
def test_spoiled_results_are_named(
    name: str, content: str | None, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("results/mppve/Hopper-v5", name)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    assert main(["--results", "results"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: results: '{path}' cannot be read")


def test_more_labels_than_colours(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(8):
        write(results, f"mbpo-{i}", "MBPO", "Hopper-v5", 0, [1.0])
    assert main(["--results", "results"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: algorithms: ")
    assert line.endswith("allowed: at most 10, one for each colour")
    assert main(["--results", "results", "--algorithms", "mbpo*"]) == 0
