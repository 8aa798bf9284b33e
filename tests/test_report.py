"""The report: its numbers against those worked out by hand, and its page as one file."""

import base64
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image
from report_page import made
from tiny import CONF, TINY, Run, execute

from lit_mbrl.report import figures
from lit_mbrl.report.runs import from_files, pick
from lit_mbrl.report.stated import stated_for

pytestmark = pytest.mark.filterwarnings("error:::lit_mbrl.report")


def test_the_tables_agree_with_numbers_worked_out_by_hand(results: Path) -> None:
    """Returns 100, 200, 300, 400, 1000: mean 400, deviation 353.6, middle three 300."""
    page = made("--results", "results", "--thresholds.Hopper-v5", "295")
    _, mppve, bf16, sac = page.tables["Hopper-v5: Algorithms"]
    assert mppve[:5] == ["MPPVE", "5", "5", "400.0 ± 158.1", "300.0"]
    # Seeds 0 and 1 stay below 295; the others pass it at 3,000, 2,000 and 2,000.
    assert mppve[6:] == ["4,000", "1", "3,000 (3 of 5)", "0:33:20"]
    low, high = (float(end.replace(",", "")) for end in mppve[5].strip("[]").split(", "))
    assert 100 <= low < 300 < high <= 1000
    assert bf16 == [
        "MPPVE-bf16",
        *"11",
        "\u2013",
        "\u2013",
        "\u2013",
        *"00",
        "not reached (0 of 1)",
        "0:00:00",
    ]
    assert sac[:5] == ["SAC", "1", "1", "0.0", "0.0"]
    assert sac[5:] == ["\u2013", "5,000", "0", "not reached (0 of 1)", "0:01:40"]
    _, *runs = page.tables["Hopper-v5: Runs"]
    commit = "0123456-dirty"
    assert runs[3] == [
        "MPPVE",
        "seed3",
        "3",
        "400.0",
        "430.0",
        "4,000",
        "2,000",
        "0:06:40",
        "cut short",
        commit,
    ]
    assert [row[8] for row in runs].count("finished") == 6
    (_, pendulum) = page.tables["InvertedPendulum-v5: Runs"]
    # gymnasium's own threshold, 950.
    assert pendulum[3:7] == ["640.3", "951.0", "4,000", "2,000"]
    assert "8 runs from the folder results" in page.text
    assert "1 of them was cut short or still running" in page.text
    stated = ["MPPVE", "Hopper-v3", "2,700", "30,000"]
    assert stated in [row[:4] for row in page.tables["Hopper-v5: Stated in papers"]]
    assert "InvertedPendulum-v5: Stated in papers" not in page.tables
    # Only SAC has runs on both tasks: 0 / 295 and (950 + 20 + 951) / 3 / 950.
    assert page.tables["All tasks: "][1:] == [["SAC", "2", "0.337", "\u2013"]]


def test_the_page_needs_no_other_file(results: Path) -> None:
    page = made("--results", "results")
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    assert "://" not in page.text
    assert "<script" not in page.text and "@import" not in page.text and "url(" not in page.text
    assert len(page.images) == 1 + 2 * 4
    for image in page.images:
        head, _, content = image.partition(",")
        assert head == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")
    names = sorted(path.name for path in Path("report").glob("*.png"))
    kinds = ["", "-final-return", "-steps-to-threshold", "-wall-time"]
    tasks = ("Hopper-v5", "InvertedPendulum-v5")
    assert names == sorted(
        [f"{task}{kind}.png" for task in tasks for kind in kinds] + ["all-tasks.png"]
    )
    for name in names:
        with Image.open(Path("report", name)) as image:
            assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
            assert len(image.convert("RGB").getcolors(1 << 24)) > 10
    # One colour for each label wherever it is.
    assert len(page.colors) == len({label for label, _ in page.colors}) == 3
    assert len({color for _, color in page.colors}) == 3
    before = Path("report/index.html").read_bytes()
    made("--results", "results")
    assert Path("report/index.html").read_bytes() == before


def test_the_learning_curves_show_every_run(results: Path) -> None:
    runs = pick(from_files(results), ["mppve"], ["hopper*"])
    colors = {"MPPVE": "#0072B2"}
    stated = [mark for mark in stated_for("Hopper-v5") if mark.algorithm == "MPPVE"]
    (axes,) = figures.learning_curves("Hopper-v5", {"MPPVE": runs}, stated, colors).axes
    faint = [
        line for line in axes.lines if line.get_alpha() is not None and line.get_linestyle() == "-"
    ]
    assert [list(line.get_ydata()) for line in faint] == [list(run.returns) for run in runs]
    bold = [list(line.get_ydata()) for line in axes.lines if line.get_linewidth() == 2]
    assert bold[0] == [10.0, 370.0, 400.0, 430.0]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [tuple(np.ravel(line.get_data())) for line in crosses] == [(4000, 430)]
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices
    at_3000 = sorted({round(y, 1) for x, y in heights if x == 3000})
    assert at_3000 == [241.9, 558.1]  # 400 -+ 158.1
    (lonely,) = pick(from_files(results), ["sac"], ["hopper*"])
    (beside,) = figures.learning_curves("Hopper-v5", {"SAC": [lonely]}, [], {"SAC": "k"}).axes
    assert beside.lines[0].get_marker() == "."
    (text,) = axes.texts
    assert text.get_text() == "stated: about 2,700 by MPPVE at 30,000 steps"
    assert [2700, 2700] in [list(line.get_ydata()) for line in axes.lines]


def test_picking(results: Path) -> None:
    def names(**patterns: Any) -> list[str]:
        return [f"{run.label}/{run.name}" for run in pick(from_files(results), **patterns)]

    assert names(algorithms=["SAC"], tasks=["Inv*"]) == ["SAC/seed7"]
    assert names(algorithms=["mppve-*", "sac"]) == ["MPPVE-bf16/seed0", "SAC/seed7", "SAC/seed7"]
    assert names(tags={"seed": "0"}) == ["MPPVE/seed0", "MPPVE-bf16/seed0"]
    assert names(tags={"commit": "0123*", "algorithm": "sac"}) == ["SAC/seed7", "SAC/seed7"]
    assert len(names()) == 8


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("trained")
    where = {"results.folder": "results/sac/InvertedPendulum-v5", "seed_everything": 3}
    return execute("sac", folder, CONF / "sac.yaml", {**TINY, **where})


def test_a_real_store_and_real_files_tell_the_same(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a run that was killed, and one that is none of ours."""
    monkeypatch.chdir(trained.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = MlflowClient(f"sqlite:///{trained.folder}/mlflow.db")
    ours = client.get_run(trained.run_id)
    other = client.create_experiment("of another name")
    tags = {"algorithm": "MBPO", "task": "InvertedPendulum-v5", "seed": "1"}
    killed = client.create_run(other, tags={**tags, "precision": "bf16-mixed"}, run_name="killed")
    for step, value in ((10, 2.0), (20, 960.0)):
        client.log_metric(killed.info.run_id, "eval/return_mean", value, step=step)
        client.log_metric(killed.info.run_id, "time/wall_seconds", step, step=step)
    client.set_terminated(killed.info.run_id, "KILLED")
    client.create_run(other, tags={"algorithm": "a parent"})
    found = made()
    final = np.mean(list(trained.metrics["eval/return_mean"].values()))
    _, first, second = found.tables["InvertedPendulum-v5: Runs"]
    assert first == [
        "MBPO-bf16",
        "killed",
        "1",
        "481.0",
        "960.0",
        "20",
        "20",
        "0:00:20",
        "cut short",
        "unknown",
    ]
    assert ours.data.tags["precision"] == "32-true"
    assert second[:2] == ["SAC", ours.info.run_name]
    assert second[2:7] == ["3", f"{final:,.1f}", second[4], "40", "not reached"]
    assert second[8] == "finished"
    assert ours.data.tags["commit"].startswith(second[9].removesuffix("-dirty"))
    _, filed = made("--results", "results").tables["InvertedPendulum-v5: Runs"]
    assert filed[1] == "seed3"
    assert filed[0] == second[0] and filed[2:] == second[2:]
    (picked,) = made("--tags.seed", "3", "--algorithms", "s*").tables["InvertedPendulum-v5: Runs"][
        1:
    ]
    assert picked == second
