"""The report: its numbers against those worked out by hand, and its page as one file."""

import base64
import math
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from mlflow.tracking import MlflowClient
from PIL import Image
from tiny import CONF, TINY, Run, execute

from lit_mbrl.report import figures, statistics
from lit_mbrl.report.__main__ import main
from lit_mbrl.report.runs import from_files, pick
from lit_mbrl.report.stated import stated_for

pytestmark = pytest.mark.filterwarnings("error:::lit_mbrl.report")

VOID = {"meta", "link", "img", "br"}


class Parsed(HTMLParser):
    """A page's tables as rows of cells, its images and its links."""

    def __init__(self, path: Path):
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}  # by the headings above
        self.images: list[str] = []
        self.links: list[str] = []
        self.colors: set[tuple[str, str]] = set()  # of the labels in tables
        self.text = path.read_text()
        self._open: list[str] = []
        self._headings = {"h1": "", "h2": "", "h3": ""}
        self._color = ""
        self.feed(self.text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        if tag == "img":
            self.images.append(found["src"])
        self.links += [found[key] for key in ("src", "href", "action") if key in found]
        if tag in self._headings:
            self._headings[tag] = ""
        if tag == "tr":
            self._table.append([])
        if tag in ("td", "th"):
            self._table[-1].append("")
        if found.get("class") == "swatch":
            self._color = found["style"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            if tag in self._headings:
                self._headings[tag] += data
        if {"td", "th"} & set(self._open):
            row = self._table[-1]
            row[-1] = " ".join(f"{row[-1]} {data}".split())
            if self._color and row[-1]:
                self.colors.add((row[-1], self._color))
                self._color = ""

    @property
    def _table(self) -> list[list[str]]:
        return self.tables.setdefault(f"{self._headings['h2']}: {self._headings['h3']}", [])


def write(
    folder: Path,
    name: str,
    algorithm: str,
    task: str,
    seed: int,
    returns: list[float],
    finished: bool = True,
    every: int = 1000,
) -> None:
    """A run's results as the callback writes them, 100 seconds an evaluation."""
    place = folder / name / task
    place.mkdir(parents=True, exist_ok=True)
    rows = ["env_step,return_mean,return_std,episode_length,wall_seconds"]
    for i, value in enumerate(returns, start=1):
        rows.append(f"{every * i},{value:.4f},1.0000,10.0000,{100 * i:.4f}")
    (place / f"seed{seed}.csv").write_text("\n".join(rows) + "\n")
    run = {
        "finished": finished,
        "machine": {"cores": 2, "threads": 1},
        "command": "python -m lit_mbrl.fit",
        "commit": "0123456789abcdef-dirty",
        "configuration": {
            "seed_everything": seed,
            "model": {"class_path": f"lit_mbrl.algorithms.{algorithm}"},
            "data": {"env_id": task},
        },
    }
    (place / f"seed{seed}.yaml").write_text(yaml.safe_dump(run))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five seeds of MPPVE on Hopper, one cut short, a variant, and SAC on two tasks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["report"])
    folder = tmp_path / "results"
    finals = [100.0, 200.0, 300.0, 400.0, 1000.0]
    for seed, final in enumerate(finals):
        more = [final - 30, final, final + 30]
        write(folder, "mppve", "MPPVE", "Hopper-v5", seed, [10.0, *more], finished=seed != 3)
    write(folder, "mppve-bf16", "MPPVE", "Hopper-v5", 0, [])
    write(folder, "sac", "SAC", "Hopper-v5", 7, [0.0], every=5000)
    write(folder, "sac", "SAC", "InvertedPendulum-v5", 7, [949.0, 950.0, 20.0, 951.0])
    return folder


def made(*arguments: str) -> Parsed:
    assert main([*arguments]) == 0
    return Parsed(Path("report/index.html"))


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


def test_runs_of_unequal_length_and_other_steps(tmp_path: Path) -> None:
    """A mean is of the runs that got there; between its own evaluations a run is interpolated."""
    write(tmp_path, "sac", "SAC", "Hopper-v5", 0, [1.0, 3.0, 8.0])
    write(tmp_path, "sac", "SAC", "Hopper-v5", 1, [5.0], every=1500)
    write(tmp_path, "sac", "SAC", "Hopper-v5", 2, [])
    curve = statistics.mean_curve(from_files(tmp_path))
    assert curve.env_steps.tolist() == [1000, 1500, 2000, 3000]
    assert curve.mean.tolist() == [1.0, 3.5, 3.0, 8.0]
    assert curve.runs.tolist() == [1, 2, 1, 1]
    # Of 2 and 5: deviation 3 / sqrt(2), divided by sqrt(2).
    assert curve.error[1] == pytest.approx(1.5)
    assert np.isnan(curve.error[[0, 2, 3]]).all()


def test_statistics_against_known_values(tmp_path: Path) -> None:
    eight = np.array([5.0, -1000.0, 3.0, 4.0, 1000.0, 6.0, 2000.0, -2000.0])
    assert statistics.interquartile_mean(eight) == 4.5  # of 3, 4, 5, 6
    assert statistics.interquartile_mean(eight[:4], eight[4:]) == 4.5
    assert statistics.interquartile_mean(np.array([1.0, 2.0, 6.0])) == 3.0
    # The four resamples of two values have the means 0, 50, 50 and 100.
    assert statistics.interval(np.array([0.0, 100.0])) == (0.0, 100.0)
    # Within strata that do not vary nothing varies.
    assert statistics.interval(np.zeros(3), np.full(3, 100.0)) == (50.0, 50.0)
    assert statistics.interval(np.zeros(3), np.zeros(1)) is None
    # A percentile interval of many values is nearly the normal one of a trimmed mean.
    many = np.random.default_rng(0).normal(7.0, 1.0, 400)
    low, high = statistics.interval(many) or (math.nan, math.nan)
    assert low < statistics.interquartile_mean(many) < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1.195 / 400), rel=0.15)
    write(tmp_path, "sac", "SAC", "Hopper-v5", 0, [1.0, 9.0, 2.0, 3.0, 7.0])
    (run,) = from_files(tmp_path)
    assert statistics.final_return(run) == 4.0  # of 2, 3 and 7
    assert statistics.steps_to(run, 9.0) == 2000
    assert statistics.steps_to(run, 9.1) == math.inf


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
