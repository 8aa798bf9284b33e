"""The benchmark runs, and counts what it says it counts."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "phases.py"


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
    }
    words = [word for pair in options.items() for word in pair]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *words], cwd=tmp_path, capture_output=True, text=True
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
