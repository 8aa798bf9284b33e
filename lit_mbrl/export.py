"""Write a checkpoint's policy to a file: `python -m lit_mbrl.export CHECKPOINT OUT`."""

import io
import logging
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

from lit_mbrl.envs import make_gym_env
from lit_mbrl.errors import require, writing
from lit_mbrl.parser import Parser, command
from lit_mbrl.policy import Policy
from lit_mbrl.trained import load

DESCRIPTION = """Write the deterministic policy of a checkpoint to a file that needs none of this
package: observations [B, S] to actions [B, A], float32, in the task's units, for any B. What was
written is read back and compared with the policy on random observations."""

TOLERANCE = 1e-5
"""Largest difference between file and policy, as a share of an action's range."""


def main(arguments: list[str] | None = None) -> int:
    """Export; returns the exit status.

    Args:
        arguments: The command line's; those of the process if None.
    """
    parser = Parser(prog="python -m lit_mbrl.export", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("checkpoint", type=Path, help="best.ckpt or last.ckpt of a run")
    parser.add_argument("out", type=Path, help=".pt2 for torch.export, .onnx for ONNX")
    return command(export, parser, arguments)


def export(checkpoint: Path, out: Path) -> None:
    """Write the policy of a checkpoint to a file, compare the two, and say so.

    Args:
        checkpoint: best.ckpt or last.ckpt of a run.
        out: The file; its suffix, .pt2 or .onnx, chooses the format.

    Raises:
        ConfigurationError: If the checkpoint cannot be used, the suffix is another, its packages
            are missing, or the file cannot be written.
    """
    require(out.suffix in FORMATS, "out", str(out), f"a file that ends in {' or '.join(FORMATS)}")
    as_bytes, act = FORMATS[out.suffix]
    needed = ("onnxscript", "onnxruntime") if out.suffix == ".onnx" else ()
    missing = " and ".join(name for name in needed if find_spec(name) is None)
    brings = f'.pt2, or .onnx with {missing}, which pip install -e ".[export]" brings'
    require(not missing, "out", str(out), brings)
    trained = load(checkpoint)
    allowed = f"one of an algorithm with an actor; {type(trained.agent).__name__} acts by planning"
    require(hasattr(trained.agent, "actor"), "checkpoint", str(checkpoint), allowed)
    policy = Policy(trained.agent, make_gym_env(trained.env_id, trained.env_kwargs))
    with writing("out", out, "a file that can be written"):
        out.write_bytes(as_bytes(policy.program()))
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(1000, *policy.observations.shape, generator=generator)
    largest = difference(policy, observation, act(out, observation.numpy()))
    if not largest <= TOLERANCE:
        out.unlink()
        raise RuntimeError(f"{out} differed from the policy by {largest:.1e} of an action's range")
    sizes = [f"[B, {space.shape[0]}]" for space in (policy.observations, policy.actions)]
    print(f"{trained}: {out} maps observations {sizes[0]} to actions {sizes[1]}")
    print(f"1,000 random observations: its actions are the policy's to {largest:.0e} of a range")


def difference(policy: Policy, observation: torch.Tensor, action: np.ndarray) -> float:
    """Largest difference of actions [B, A] to the policy's, as a share of their range."""
    gap = torch.from_numpy(action) - policy(observation)
    return float((gap / (2 * policy.half_range)).abs().max())


def to_pt2(program: ExportedProgram) -> bytes:
    """The file of `torch.export.save`."""
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def to_onnx(program: ExportedProgram) -> bytes:
    """An ONNX model with the input `observation` and the output `action`."""
    # What it says is about operators of other packages, and of PyTorch's own old names.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        made = torch.onnx.export(program, (), output_names=["action"], verbose=False)
    assert made is not None
    return made.model_proto.SerializeToString()


def act_pt2(path: Path, observation: np.ndarray) -> np.ndarray:
    """Actions [B, A] of the file for observations [B, S]."""
    action: np.ndarray = torch.export.load(path).module()(torch.from_numpy(observation)).numpy()
    return action


def act_onnx(path: Path, observation: np.ndarray) -> np.ndarray:
    """Actions [B, A] of the file for observations [B, S]."""
    from onnxruntime import InferenceSession  # an optional dependency

    action: np.ndarray = InferenceSession(path).run(["action"], {"observation": observation})[0]
    return action


FORMATS = {".pt2": (to_pt2, act_pt2), ".onnx": (to_onnx, act_onnx)}

if __name__ == "__main__":
    sys.exit(main())
