"""Short runs of every algorithm on a device, and what one of their steps waits for.

    python tests/step_on_device.py simulated

or `cuda`, where there is one, or `cpu`, for which nothing waits; then names of configurations, all
if none. Prints a line of JSON for each: what was waited for, how often evaluations waited (told of
the simulated device alone), on which devices the agent and D_env were, and a digest of the weights
that were learned; or the error of the run.
"""

import lit_mbrl  # isort: skip  # noqa: F401  # before torch, see lit_mbrl.mkl

import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning import Callback, Trainer

from lit_mbrl.dynamics import fitting
from lit_mbrl.fit import FitCLI, build, quieten

CONF = Path(__file__).parents[1] / "conf"
STEPS, WATCHED = 6, 4  # at the watched one nothing is due but to step and to learn
SMALL: dict[str, Any] = {
    "hidden_sizes": [8, 8],
    "model_hidden_sizes": [8],
    "dynamics_hidden_sizes": [8],
    "dynamics_weight_decay": [0.0, 0.0],
    "dynamics_networks": 3,
    "dynamics_elites": 2,
    "fit_patience": 1,
    "particles": 2,
}
SMALL_PLANNER = {"horizon": 2, "candidates": 8, "elites": 4, "iterations": 2}
SHORT: dict[str, Any] = {
    "data.batch_size": 32,
    "data.warmup_steps": 96,
    "data.steps_per_epoch": STEPS,
    "evaluation.every": STEPS,
    "evaluation.episodes": 2,
    "checkpoint.every": STEPS,
    "throughput.every": 1000,
    "registration.enabled": False,
    "trainer.max_epochs": 1,
    "trainer.log_every_n_steps": STEPS,
}


class Watch(Callback):
    """Where the agent and its data are at the end of a step, and what that step waited for."""

    def __init__(self, device: str) -> None:
        self.device, self.waits, self.devices = device, list[str](), set[str]()
        self._watching: Any = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.env_steps == WATCHED - 1:
            self._watching = waits(self.device)
            self.waits = self._watching.__enter__()
        elif pl_module.env_steps == WATCHED:
            self._watching.__exit__(None, None, None)
            states = [
                value
                for name in pl_module.named_optimizers()
                for state in pl_module.optimizer(name).state.values()
                for key, value in state.items()
                if key != "step"  # torch keeps it where its Adam wants it
            ]
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            rows = data.replay.transitions()
            parts = [*pl_module.parameters(), *pl_module.buffers(), *states, rows]
            self.devices = {part.device.type for part in parts}


@contextmanager
def waits(device: str) -> Iterator[list[str]]:
    """What is waited for meanwhile, and the file that did."""
    found: list[str] = []
    if device == "cuda":
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for owner in (torch.cuda, torch.cuda.Event, torch.cuda.Stream):  # these do not warn
                patch.setattr(owner, "synchronize", counted(owner.synchronize, found))
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield found
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found += [
            f"{warning.message} ({Path(warning.filename).name})"
            for warning in caught
            if "called a synchronizing" in str(warning.message)
        ]
    elif device == "simulated":
        from simulated_device import WAITS

        before = len(WAITS)
        yield found
        found += WAITS[before:]
    else:
        yield found


def counted(function: Callable[..., Any], found: list[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        found.append(function.__qualname__)
        return function(*args, **kwargs)

    return call


def run(name: str, device: str) -> dict[str, Any]:
    """Train in the working directory; what to print of it."""
    given = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    model = given["model"]["init_args"]
    planner = model.get("planner", {}).get("init_args", {})
    changed = {
        **{f"model.{key}": value for key, value in SMALL.items() if key in model},
        **{
            f"model.planner.init_args.{key}": value
            for key, value in SMALL_PLANNER.items()
            if key in planner
        },
        **SHORT,
        "data.updates_per_step": min(2, given["data"]["updates_per_step"]),
        "trainer.accelerator": device,
        "trainer.strategy": device if device == "simulated" else "auto",
    }
    if given.get("retraining", {}).get("rollouts"):
        changed["retraining.rollouts"] = 100
    if name == "pets":
        changed["model.planner"] = "ICEM"  # which no configuration has
    if name in ("mppve", "pets", "loop") and device == "cuda":
        changed["compilation.after"] = 0  # what is captured is so before the watched step
    if name == "mppve":
        changed["retraining.fit_rows"] = 50
    watch = Watch(device)
    with waits(device) if device == "simulated" else nullcontext([]) as all_waits:
        cli = train(name, changed, watch)
    if name == "mppve":
        cli = train(name, {**changed, "trainer.max_epochs": 2, "ckpt_path": "last"})
        assert cli.ckpt_path is not None, "it has not gone on from what it had saved"
    weights = [value.detach().cpu().numpy().tobytes() for value in cli.model.state_dict().values()]
    return {
        "waits": watch.waits,
        "evaluations_wait": sum("(evaluation.py, run_episodes)" in line for line in all_waits),
        "devices": sorted(watch.devices),
        "weights": hashlib.sha256(b"".join(weights)).hexdigest(),
    }


def train(name: str, options: dict[str, Any], *callbacks: Callback) -> FitCLI:
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    cli = build(["--config", str(CONF / f"{name}.yaml"), *words])
    cli.trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.ckpt_path)
    return cli


def main(device: str, names: list[str]) -> int:
    if device == "simulated":
        import simulated_device  # noqa: F401
    sys.argv = ["fit"]
    quieten()
    fitting.PATIENT_UPDATES = 1  # fits need to have learned nothing here
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name in names or sorted(path.stem for path in CONF.glob("*.yaml")):
            try:
                found = run(name, device)
            except Exception as error:
                found = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            print(json.dumps({"configuration": name, **found}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
