"""Times our MBPO against mbrl-lib's, in alternating runs with the same settings.

    python benchmarks/against_mbrl_lib.py --rounds 3 --json new.json

mbrl-lib 0.2.0 (Pineda et al., arXiv 2104.10159) comes from PyPI into an environment of its own.
Both train on InvertedPendulum with two critics and an actor of 2 x 256, batches of 256, 10 updates
an environment step, an ensemble of 7 networks of 4 x 200 fitted every 250 steps, and 100,000
imagined steps after each fit, on as many threads. Timed are the environment steps from the first
fit that both have behind them to two fits later, with everything that belongs to them; what ours
compiles once in a run, half a minute, lies before. Both explore for 5,000 steps, as is published: a
fit to fewer transitions lasts longer with ours than with theirs (`lit_mbrl/dynamics/fitting.py`).
On a processor of AMD ours runs the kernels that MKL has for Intel's (`lit_mbrl.mkl`) and theirs
what MKL takes by itself, as users have them. With `--precision bf16-mixed` ours trains so, which
mbrl-lib has no option for.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

FIRST, LAST = 250, 750
"""The steps after the first and up to the last are timed; mbrl-lib's first fit is at 250."""

EXPLORATION = 5000
PROGRAM = Path(__file__).absolute()
REQUIRED = [
    ["mbrl==0.2.0", "gymnasium==0.26.3", "mujoco==2.3.7", "numpy<2"],
    # In its place: the one that it asks for does not start on Python 3.11.
    ["hydra-core==1.3.2"],
]


def ours(precision: str) -> float:
    """Seconds that our MBPO takes from step `FIRST` to step `LAST`."""
    import lit_mbrl  # isort: skip  # noqa: F401  # before torch, see lit_mbrl.mkl
    from pytorch_lightning import Callback

    from lit_mbrl.fit import build, prepare_process

    at: dict[int, float] = {}

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Any, agent: Any, *args: Any, **kwargs: Any) -> None:
            at[agent.env_steps] = time.perf_counter()

    options: dict[str, Any] = {
        "config": Path(__file__).parents[1] / "conf" / "mbpo.yaml",
        "trainer.max_epochs": 1,
        "trainer.precision": precision,
        "data.steps_per_epoch": LAST,
        "data.warmup_steps": EXPLORATION,
        "data.real_ratio": 0.0,
        "model.fit_patience": 5,
        "compilation.after": 0,
        "evaluation.every": 250,
        "evaluation.episodes": 1,
        "checkpoint.every": 0,
        "registration.enabled": False,
    }
    prepare_process()
    cli = build([word for name, value in options.items() for word in (f"--{name}", str(value))])
    cli.trainer.callbacks.append(Clock())  # type: ignore[attr-defined]
    cli.trainer.fit(cli.model, cli.datamodule)
    return at[LAST] - at[FIRST]


def box(low: Any, high: Any, shape: Any) -> Any:
    """The action space that mbrl-lib's configuration describes."""
    import numpy as np
    from gymnasium.spaces import Box

    ends = (np.array(list(end), dtype=np.float32) for end in (low, high))
    return Box(*ends, shape=tuple(shape))


def theirs(precision: str) -> float:
    """The same of mbrl-lib's, called in its own environment; always in float32."""
    import gymnasium
    import mbrl
    from mbrl.algorithms import mbpo
    from mbrl.env.termination_fns import inverted_pendulum
    from omegaconf import OmegaConf

    at: list[float] = []

    class Clock(gymnasium.Wrapper):  # type: ignore[misc,type-arg]
        def step(self, action: Any) -> Any:
            at.append(time.perf_counter())
            return self.env.step(action)

    conf = Path(mbrl.__file__).parent / "examples" / "conf"  # without all that Hydra asks for
    cfg = OmegaConf.load(conf / "main.yaml")
    cfg.algorithm = OmegaConf.load(conf / "algorithm" / "mbpo.yaml")
    cfg.dynamics_model = OmegaConf.load(conf / "dynamics_model" / "gaussian_mlp_ensemble.yaml")
    cfg.dynamics_model._recursive_ = False  # the model makes its activation by itself
    cfg.overrides = OmegaConf.load(conf / "overrides" / "mbpo_inv_pendulum.yaml")
    cfg.algorithm.agent.action_space._target_ = f"{__name__}.box"  # it names gym's, which is gone
    cfg.device = "cpu"
    cfg.algorithm.initial_exploration_steps = EXPLORATION
    cfg.overrides.num_steps = LAST + 1
    env, test_env = (gymnasium.make("InvertedPendulum-v4") for _ in range(2))
    mbpo.train(Clock(env), test_env, inverted_pendulum, cfg, silent=True, work_dir=os.getcwd())
    # A step begins with the environment's: these are the starts of the steps after FIRST and LAST.
    return at[EXPLORATION + LAST] - at[EXPLORATION + FIRST]


SIDES: dict[str, Callable[[str], float]] = {"ours": ours, "theirs": theirs}


def install(folder: Path) -> Path:
    """mbrl-lib in an environment of its own, with our version of torch; returns its Python."""
    import torch

    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing mbrl-lib into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True)
        release = torch.__version__.partition("+")[0]
        for packages in ([f"torch=={release}"], *REQUIRED):  # torch first, or pip takes the newest
            command = [str(python), "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(command, check=True)
    return python


def seconds(python: Path, side: str, precision: str) -> float:
    """Time one side in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(python), str(PROGRAM), "--side", side, "--precision", precision],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return float(done.stdout.splitlines()[-1])


def main() -> int:
    """Alternate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=3)
    precisions = ("32-true", "bf16-mixed")
    parser.add_argument("--precision", choices=precisions, default="32-true", help="of ours")
    parser.add_argument("--environment", type=Path, help="keep mbrl-lib's environment there")
    parser.add_argument("--json", type=Path, help="write what was found there")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(SIDES[given.side](given.precision))
        return 0
    import lit_mbrl  # noqa: F401  # before torch, see lit_mbrl.mkl; not in mbrl-lib's environment

    steps = LAST - FIRST
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        python = {
            "ours": Path(sys.executable),
            "theirs": install((given.environment or Path(folder)).absolute()),
        }
        with chdir(folder):
            for number in range(given.rounds):
                rates = {
                    side: steps / seconds(python[side], side, given.precision) for side in SIDES
                }
                rounds.append({**rates, "ratio": rates["ours"] / rates["theirs"]})
                print(
                    f"round {number + 1}: ours {rates['ours']:.2f}, mbrl-lib {rates['theirs']:.2f} "
                    f"environment steps a second, ratio {rounds[-1]['ratio']:.2f}",
                    flush=True,
                )
    ratio = statistics.median(found["ratio"] for found in rounds)
    print(f"median ratio: {ratio:.2f}")
    if given.json:
        import torch
        from phases import machine

        found = {
            "machine": machine(torch.device("cpu")),
            "precision": given.precision,
            "rounds": rounds,
            "ratio": ratio,
        }
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
