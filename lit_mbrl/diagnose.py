"""Diagnose a checkpoint's dynamics model: `python -m lit_mbrl.diagnose CHECKPOINT`."""

import sys
from pathlib import Path
from typing import Any

from lit_mbrl.checkpoints import read
from lit_mbrl.diagnosis import diagnose
from lit_mbrl.diagnosis_page import write_diagnosis
from lit_mbrl.errors import require, writing
from lit_mbrl.held_out import held_out, require_transitions
from lit_mbrl.parser import Parser, command
from lit_mbrl.trained import load

DESCRIPTION = """Compare the predictions of a checkpoint's dynamics model with new transitions
of its task, taken by its policy in episodes that no fit has seen. Writes diagnosis.png, a page of
figures, and diagnosis.json, their numbers."""


def main(arguments: list[str] | None = None) -> int:
    """Diagnose; returns the exit status.

    Args:
        arguments: The command line's; those of the process if None.
    """
    parser = Parser(
        prog="python -m lit_mbrl.diagnose", description=DESCRIPTION, exit_on_error=False
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="last.ckpt or best.ckpt of a run that learns a model")
    add("--output", type=Path, default=Path("diagnosis"), help="folder to write to")
    add("--rollout_length", type=int | None, help="of rollouts; the run's longest, if last.ckpt")
    add("--transitions", type=int, default=4000, help="how many to collect")
    add("--seed", type=int | None, help="of their episodes; the run's own by default")
    return command(diagnose_checkpoint, parser, arguments)


def diagnose_checkpoint(
    checkpoint: Path,
    output: Path,
    rollout_length: int | None = None,
    transitions: int = 4000,
    seed: int | None = None,
) -> None:
    """Diagnose the model in a checkpoint, and print what its figures come to.

    Args:
        checkpoint: last.ckpt or best.ckpt of a run.
        output: Folder to write to.
        rollout_length: Steps of the rollouts that are judged; the longest of the run if None,
            which last.ckpt knows.
        transitions: How many to collect, see `require_transitions`.
        seed: Of initial states and actions; the run's own if None.

    Raises:
        ConfigurationError: If a value cannot be used.
        TrainingError: If the task fails, or the policy's actions are not finite.
    """
    require_transitions("transitions", transitions)
    require(seed is None or 0 <= seed < 2**32, "seed", seed, "an integer from 0 to 2**32 - 1")
    trained = load(checkpoint)
    agent: Any = trained.agent
    allowed = f"one of an algorithm that learns a model, which {type(agent).__name__} does not"
    require(hasattr(agent, "dynamics"), "checkpoint", str(checkpoint), allowed)
    if rollout_length is None:
        rollout_length = _longest(checkpoint)
    usable = rollout_length is not None and rollout_length >= 1
    allowed = "an integer of at least 1; this checkpoint does not tell the run's longest"
    require(usable, "rollout_length", rollout_length, allowed)
    assert rollout_length is not None
    seed = trained.seed if seed is None else seed
    real = held_out(agent, trained.env_id, trained.env_kwargs, transitions, seed)
    found = diagnose(agent.dynamics, real, rollout_length, seed)
    with writing("output", output, "a folder that can be made and written to"):
        write_diagnosis(found, str(trained), output)
    print(f"{trained}: {transitions:,} held-out transitions, seed {seed}")
    for metric, value in found.metrics().items():
        print(f"{metric.removeprefix('dynamics/').replace('_', ' ')}: {value:.3f}")
    print(f"figures: {output / 'diagnosis.png'}")


def _longest(checkpoint: Path) -> int | None:
    """The longest rollouts of the schedule that a checkpoint was trained with."""
    schedule = read(checkpoint).get("callbacks", {}).get("RolloutLength", {})
    longest: int | None = schedule.get("longest")
    return longest


if __name__ == "__main__":
    sys.exit(main())
