"""Where things are computed: all on the device, for which a step waits once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("step_on_device.py")
NAMES = sorted(path.stem for path in SCRIPT.parents[1].glob("conf/*.yaml"))
RAGGED = {"mpdp", "s2vg", "sacmve", "sacmvempi"}
"""Leave rows out of a batch once they have ended, so that they ask the device how many are left."""
PLAN = {"loop", "loop_cem", "loopsarsa", "pets", "pets_restricted", "poplina", "poplinp"}
"""Are evaluated by planning, on the device."""
DEVICES = ["simulated"] + ["cuda"] * torch.cuda.is_available()


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def execute(*arguments: str) -> dict[str, dict[str, Any]]:
    """What the script says of each configuration; in a process of its own, as it changes torch."""
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env={key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0 and "could not be" not in done.stderr, done.stderr
    return {row.pop("configuration"): row for row in map(json.loads, lines)}


@pytest.fixture(scope="module")
def found(device: str) -> dict[str, dict[str, Any]]:
    return execute(device)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_waits_for_the_device_once(
    name: str, found: dict[str, dict[str, Any]], device: str
) -> None:
    """For the action, which the simulator needs; and no tensor of a run is elsewhere."""
    assert found[name].get("devices") == [device], found[name]
    first, *others = found[name]["waits"]
    assert "(module.py" in first
    assert bool(others) == (name in RAGGED)


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_is_evaluated_on_the_processor(
    name: str, found: dict[str, dict[str, Any]], device: str
) -> None:
    """Where it has not to wait for a GPU at each step; what plans does so on the device."""
    if device != "simulated":
        pytest.skip("a GPU does not tell who waits for it")
    assert bool(found[name]["evaluations_wait"]) == (name in PLAN), found[name]


def test_what_is_learned_there_is_what_the_processor_learns(
    found: dict[str, dict[str, Any]], device: str
) -> None:
    """The simulated device rounds as the processor does, but for the derivative of swish."""
    if device != "simulated":
        pytest.skip("a GPU draws other random numbers")
    names = ["ddpg", "sac"]  # without an ensemble
    expected = execute("cpu", *names)
    assert [found[n]["weights"] for n in names] == [expected[n]["weights"] for n in names]
