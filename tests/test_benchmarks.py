"""The benchmarks run, and count what they say they count."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import CONF, TINY, TINY_MODEL, options

from mlflow import MlflowClient

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(program: str, folder: Path, *words: str) -> str:
    """What a benchmark that is started in a folder prints."""
    command = [sys.executable, str(BENCHMARKS / program), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(printed: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_phases_are_counted_and_timed(tmp_path: Path) -> None:
    """Operations of small networks against those worked out by hand."""
    written = tmp_path / "found.json"
    options = {
        "--tasks": "Hopper-v5",
        "--steps": "3",
        "--least": "0.01",
        "--json": str(written),
        "--data.warmup_steps": "300",
        "--data.updates_per_step": "2",
        "--model.hidden_sizes": "[32, 16]",
        "--model.dynamics_hidden_sizes": "[8, 8]",
        "--model.dynamics_weight_decay": "[0, 0, 0]",
        "--retraining.rollouts": "600",
        "--compilation.after": "null",
    }
    printed = run("phases.py", tmp_path, *(word for pair in options.items() for word in pair))
    result = json.loads(written.read_text())["tasks"]["Hopper-v5"]
    phases = result["phases"]
    assert all(row["milliseconds"] > 0 for row in phases.values())
    for name in phases:
        assert name in printed
    # Two critics, 256 rows, 11 + 3 x 3 inputs. Forward, and backward without the inputs' gradient,
    # for the critics; forward for their targets. The last layer, of one column, is no product.
    layers = [(20, 32), (32, 16)]
    forward = sum(2 * 2 * 256 * i * o for i, o in layers)
    inputs = 2 * 2 * 256 * 20 * 32
    assert round(phases["critic update"]["gigaflop"] * 1e9) == 2 * forward + 2 * forward - inputs
    # A row of the model's step and the policy's, for each of the imagined steps.
    model = [(14, 8), (8, 8), (8, 24)]
    policy = [(11, 32), (32, 16), (16, 6)]
    row = sum(2 * i * o for i, o in [*model, *policy])
    assert round(phases["imagination"]["gigaflop"] * 1e9) == row
    assert 0 < sum(result["job"]["shares"].values()) <= 1.01
    assert result["job"]["steps_per_second"] > 0


def test_gradients_are_measured_for_each_horizon(tmp_path: Path) -> None:
    words = "--tasks InvertedPendulum-v5 --horizons 1 4 --transitions 400 --batches 3 --windows 8"
    rows = table(run("gradient_norms.py", tmp_path, *words.split()))
    assert [int(row[0]) for row in rows] == [1, 4]
    for _, median, largest, cosine in rows:
        assert 0 < float(median) <= float(largest) and -1 <= float(cosine) <= 1


def test_gradients_through_the_model_are_measured_for_each_horizon(tmp_path: Path) -> None:
    words = "--tasks InvertedPendulum-v5 --horizons 1 3 --transitions 400 --batches 3 --rows 8"
    rows = table(run("path_gradient_norms.py", tmp_path, *words.split()))
    names = ["MAAC", "MPDP", "MPDP's pi_0"]
    assert [(row[0], int(row[1])) for row in rows] == [(name, h) for h in (1, 3) for name in names]
    for _, _, median, largest, cosine in rows:
        assert 0 < float(median) <= float(largest) and -1 <= float(cosine) <= 1


def test_the_cost_is_measured_as_the_buffers_grow(tmp_path: Path) -> None:
    """D_env and D_model hold as much as they are said to; a fit of more rows takes longer."""
    sizes = {"--transitions": "400 8000", "--lengths": "1 3", "--least": "0.01"}
    values = {**TINY_MODEL, "data.warmup_steps": 300, "retraining.rollouts": 600}
    words = [word for option, value in sizes.items() for word in (option, *value.split())]
    written = ["--json", "found.json", "--figure", "found.png"]
    run("growth.py", tmp_path, *words, *written, *options(values))
    found = json.loads((tmp_path / "found.json").read_text())
    few, many = (found["transitions"][number] for number in ("400", "8000"))
    assert many["megabytes"] == pytest.approx(20 * few["megabytes"])
    assert many["seconds_of_an_epoch"] > few["seconds_of_an_epoch"]
    windows = [found["lengths"][length]["windows"] for length in ("1", "3")]
    kept = 600 * TINY_MODEL["retraining.retain_steps"] // TINY_MODEL["retraining.every"]
    assert windows == [kept, 3 * kept]
    assert (tmp_path / "found.png").stat().st_size > 10_000


def test_the_divergence_of_plans_and_actors_is_drawn_for_each_seed(tmp_path: Path) -> None:
    """Of the newest run with that seed and planner; a run that is not LOOP's is left alone."""
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    log = {"LOOP ARC 0": 0.9, "LOOP ARC 1": 0.1, "LOOPSARSA CEM 0": 0.7, "LOOP CEM 0": 0.4}
    for place, (name, value) in enumerate([*log.items(), ("LOOP ARC 0", 0.2)], 1):
        algorithm, planner, seed = name.split()
        tags = {"algorithm": algorithm, "task": "InvertedPendulum-v5", "seed": seed}
        started = client.create_run("0", start_time=place, tags=tags).info.run_id
        client.log_param(started, "planner/class_path", f"lit_mbrl.planning.{planner}")
        client.log_metric(started, "actor/divergence", value, step=250)
    run("actor_divergence.py", tmp_path, "--figure", "found.png")
    found = {
        str(path.relative_to(tmp_path / "results")): path.read_text().splitlines()
        for path in tmp_path.glob("results/*/InvertedPendulum-v5/*.csv")
    }
    shown = {"loop": {"0": 0.2, "1": 0.1}, "loopcem": {"0": 0.4}}
    assert found == {
        f"{folder}/InvertedPendulum-v5/logged-seed{seed}.csv": [
            "metric,env_step,value",
            f"actor/divergence,250,{value}",
        ]
        for folder, seeds in shown.items()
        for seed, value in seeds.items()
    }
    assert (tmp_path / "found.png").stat().st_size > 10_000


def test_plans_are_counted_and_timed(tmp_path: Path) -> None:
    """Two iterations of 10 plans of 3 steps, with 4 particles: rows through [20, 8, 36]."""
    written = tmp_path / "found.json"
    words = "--horizons 3 --candidates 10 --particles 4 --iterations 2 --hidden_sizes 8"
    sizes = "--observation_size 17 --action_size 3 --least 0.01"
    run("planning.py", tmp_path, *words.split(), *sizes.split(), "--json", str(written))
    (row,) = json.loads(written.read_text())["plans"]
    compiled = run("planning.py", tmp_path, *words.split(), *sizes.split(), "--compiled")
    assert "compiled a step of plans" in compiled and "  uncompiled " in compiled
    products = 2 * 3 * 10 * 4 * 2 * (20 * 8 + 8 * 36)
    scaling = 2 * 4 * 20 * 8 * 2  # the input's mean through the first layer, once an iteration
    moments = 2 * 2 * 2 * 10 * 3 * 3
    assert round(row["gigaflop"] * 1e9) == products + scaling + moments
    assert row["plans_per_second"] > 0 and row["fraction"] > 0


def test_plans_are_set_beside_torchrls(tmp_path: Path) -> None:
    words = "--horizons 2 --candidates 10 20 --least 0.01 --rounds 1"
    rows = table(run("against_torchrl.py", tmp_path, *words.split()))
    assert [row[:2] for row in rows] == [["2", "10"], ["2", "20"]]
    for row in rows:
        ours, theirs, ratio = map(float, row[2:])
        assert ours > 0 and ratio == pytest.approx(theirs / ours, rel=0.1)


def test_the_parts_of_watching_a_run_are_told_apart(tmp_path: Path) -> None:
    values = {**TINY, **TINY_MODEL, "diagnosis.every": 20, "diagnosis.transitions": 400}
    words = ["--config", str(CONF / "mppve.yaml"), *options(values)]
    printed = run("overhead.py", tmp_path, *words)
    found = re.findall(r"^(\w+) +([\d.]+) +([\d.]+)%$", printed, re.MULTILINE)
    parts = {name: (float(seconds), float(share)) for name, seconds, share in found}
    assert set(parts) == {"logging", "progress", "evaluation", "diagnosis", "checkpoints"}
    wall = re.search(r"^39 environment steps in ([\d.]+) s;", printed, re.MULTILINE)
    assert wall is not None
    for seconds, share in parts.values():
        assert share == pytest.approx(100 * seconds * 39 / 1000 / float(wall[1]), rel=0.1, abs=0.2)
    assert 0 < sum(share for _, share in parts.values()) < 100
    assert parts["diagnosis"][0] > parts["progress"][0]
