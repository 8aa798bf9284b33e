"""The benchmarks run, and count what they say they count."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import CONF, TINY, TINY_MODEL, options

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


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
    words = [word for pair in options.items() for word in pair]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "phases.py"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(written.read_text())["tasks"]["Hopper-v5"]
    phases = result["phases"]
    assert all(row["milliseconds"] > 0 for row in phases.values())
    for name in phases:
        assert name in done.stdout
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
    command = [sys.executable, str(BENCHMARKS / "gradient_norms.py"), *words.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("|").split("|") for line in done.stdout.splitlines()[3:]]
    assert [int(row[0]) for row in rows] == [1, 4]
    for _, median, largest, cosine in rows:
        assert 0 < float(median) <= float(largest) and -1 <= float(cosine) <= 1


def test_plans_are_counted_and_timed(tmp_path: Path) -> None:
    """Two iterations of 10 plans of 3 steps, with 4 particles: rows through [20, 8, 36]."""
    written = tmp_path / "found.json"
    words = "--horizons 3 --candidates 10 --particles 4 --iterations 2 --hidden_sizes 8"
    sizes = "--observation_size 17 --action_size 3 --least 0.01"
    command = [sys.executable, str(BENCHMARKS / "planning.py"), *words.split(), *sizes.split()]
    command += ["--json", str(written)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(written.read_text())["plans"]
    products = 2 * 3 * 10 * 4 * 2 * (20 * 8 + 8 * 36)
    scaling = 2 * 4 * 20 * 8 * 2  # the input's mean through the first layer, once an iteration
    moments = 2 * 2 * 2 * 10 * 3 * 3
    assert round(row["gigaflop"] * 1e9) == products + scaling + moments
    assert row["plans_per_second"] > 0 and row["fraction"] > 0


def test_the_parts_of_watching_a_run_are_told_apart(tmp_path: Path) -> None:
    values = {**TINY, **TINY_MODEL, "diagnosis.every": 20, "diagnosis.transitions": 400}
    words = ["--config", str(CONF / "mppve.yaml"), *options(values)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "overhead.py"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(\w+) +([\d.]+) +([\d.]+)%$", done.stdout, re.MULTILINE)
    parts = {name: (float(seconds), float(share)) for name, seconds, share in found}
    assert set(parts) == {"logging", "progress", "evaluation", "diagnosis", "checkpoints"}
    wall = re.search(r"^39 environment steps in ([\d.]+) s;", done.stdout, re.MULTILINE)
    assert wall is not None
    for seconds, share in parts.values():
        assert share == pytest.approx(100 * seconds * 39 / 1000 / float(wall[1]), rel=0.1, abs=0.2)
    assert 0 < sum(share for _, share in parts.values()) < 100
    assert parts["diagnosis"][0] > parts["progress"][0]
