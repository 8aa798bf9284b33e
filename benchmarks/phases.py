"""Times each phase of MPPVE at a task's real sizes, beside what the machine could do.

    python benchmarks/phases.py --tasks Hopper-v5 HalfCheetah-v5 Ant-v5 --json new.json
    python benchmarks/phases.py --tasks Hopper-v5 --compare old.json

Each phase is the code of the real run, called on a run that has made some environment steps: its
networks, buffers and task. Counted are the floating-point operations of its matrix products (by
torch's flop counter) and the bytes that its tensor operations read and write. What is timed runs
compiled, but with `--compilation.after null`; on a GPU where there is one, but with
`--trainer.accelerator cpu`. The ceilings are taken in the same run: a product of the phase's
heaviest shape, a large product, a large copy. The fraction is the time that the counted operations
would take at the product's ceiling over the time that they took.
"""

import lit_mbrl  # isort: skip  # before torch, see lit_mbrl.mkl

import argparse
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import torch
from lit_mbrl.callbacks import EnvStepCheckpoint, Evaluation
from lit_mbrl.callbacks.trainer import data_of, log
from pytorch_lightning import Callback, LightningModule, Trainer
from tensordict import TensorDict
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from lit_mbrl.compilation import Compiler
from lit_mbrl.dynamics import FitReport, fit
from lit_mbrl.fit import build, prepare_process
from lit_mbrl.objectives import Plan
from lit_mbrl.products import bmm
from lit_mbrl.recording import current_commit

CONF = Path(__file__).parents[1] / "conf"
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
AT_STEP = 20
"""Environment step at whose end the phases are timed."""


class Traffic(TorchDispatchMode):
    """Counts the bytes that tensor operations read and write, and the shapes of products."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.products: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.is_view:
            return out
        touched = [leaf for leaf in tree_leaves((args, out)) if isinstance(leaf, Tensor)]
        self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in touched)
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            matrices = [arg for arg in args if isinstance(arg, Tensor)][-2:]
            first, second = (tuple(matrix.shape) for matrix in matrices)
            self.products[first, second] += (
                2 * first[-1] * matrices[1].shape[-1] * (matrices[0].numel() // first[-1])
            )
        return out


def seconds(work: Callable[[], Any], least: float) -> float:
    """Median seconds of a call, over at least so many seconds of calls."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=least).median)


def product_rate(first: tuple[int, ...], second: tuple[int, ...], device: Any, dtype: Any) -> float:
    """Floating-point operations a second of one matrix product."""
    a, b = (torch.randn(shape, device=device).to(dtype) for shape in (first, second))
    operations = 2 * a.numel() * second[-1]
    if a.ndim < 3:
        return operations / seconds(lambda: a @ b, 0.3)
    out = a.new_empty(*first[:-1], second[-1])
    return operations / seconds(lambda: bmm(a, b, out=out), 0.3)


class Phases(Callback):
    """Times every phase at the end of step `AT_STEP`."""

    def __init__(self, least: float) -> None:
        self.least = least
        self.rows: dict[str, dict[str, Any]] = {}
        self.machine: dict[str, Any] = {}
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.compilers: list[Compiler] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        agent: Any = pl_module
        if agent.env_steps != AT_STEP:
            return
        self.device = agent.device
        bf16 = trainer.precision == "bf16-mixed"
        self.dtype = torch.bfloat16 if bf16 else torch.float32  # of the heaviest products
        self.machine = machine(self.device)
        data = data_of(trainer)
        autocast = agent.autocast
        batch = data.draw()
        rows = batch.numel()
        with torch.no_grad():
            plan = agent.sample_plan(batch["next", "observation"].flatten(0, 1))
        real = batch["observation"][:, : agent.real_rows].flatten(0, 1)
        targets = [part.unflatten(0, batch.shape) for part in plan]

        following = batch["next", "observation"].flatten(0, 1)
        self.compilers = [m.compiler for m in agent.modules() if hasattr(m, "compiler")]

        def plans() -> None:
            with autocast():
                agent.compiler.call("the plans", agent.sample_plan, following)

        def critic_updates(batch: TensorDict, *plans: Tensor) -> None:
            for windows, *plan in zip(batch.unbind(0), *plans, strict=True):
                agent.step("critic", agent.critic_loss, windows, Plan(*plan))
                agent.track(agent.target_critic, agent.critic, agent.target_rate)

        def critic() -> None:
            with autocast():
                agent.compiler.capture("critic updates", critic_updates, batch, *targets)

        def actor_update(real: Tensor) -> None:
            agent.step("actor", agent.actor_loss, real, agent.differentiated, max_norm=10.0)

        def actor() -> None:
            with autocast():
                agent.compiler.capture("the actor's update", actor_update, real)

        def learn() -> None:
            with autocast():
                agent.compiler.capture("the updates", agent.learn, batch, agent.differentiated)

        transitions = data.replay.transitions()

        def fit_dynamics() -> FitReport:
            with autocast():
                return fit(agent.dynamics, agent.optimizer("dynamics"), transitions, patience=1)

        def imagine() -> None:
            with autocast():
                agent.imagine(data.replay, 10_000)

        def log_metrics() -> None:
            log(trainer, {"actor/loss": 0.0, "critic/loss": 0.0, "critic/value": 0.0})

        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        evaluation = next(c for c in callbacks if isinstance(c, Evaluation))
        checkpoint = next(c for c in callbacks if isinstance(c, EnvStepCheckpoint))
        updates = data.updates_per_step
        frames = iter(data._collector)  # type: ignore[arg-type]
        self.time("plans of all targets", plans, per=updates, unit="critic update")
        self.time("critic update", critic, per=updates, unit="critic update")
        self.time("actor update", actor, per=1, unit="actor update")
        self.time("all updates of a step", learn, per=updates, unit="critic update")
        self.time("dynamics epoch", fit_dynamics, per=lambda report: report.epochs, unit="epoch")
        self.time("imagination", imagine, per=10_000, unit="row")
        self.time("drawing a step's batch", data.draw, per=rows, unit="row")
        self.time("a step of the task", lambda: next(frames), per=1, unit="step")
        self.time("evaluation", lambda: evaluation.run_episodes(agent), per=1, unit="evaluation")
        self.time(
            "checkpoint",
            lambda: trainer.save_checkpoint(checkpoint.last, weights_only=False),
            per=1,
            unit="checkpoint",
        )
        self.time("logging", log_metrics, per=1, unit="call")

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Every operation is seen by who counts them, as it is not in a compiled function."""
        enabled = [compiler.enabled for compiler in self.compilers]
        for compiler in self.compilers:
            compiler.enabled = False
        yield
        for compiler, before in zip(self.compilers, enabled, strict=True):
            compiler.enabled = before

    def time(
        self, name: str, work: Callable[[], Any], per: int | Callable[[Any], int], unit: str
    ) -> None:
        """Count and time one phase.

        Args:
            name: Of the phase.
            work: Does it.
            per: Units of work in one call; or, where each call does another number of them, what
                tells the number from the call's result: then one call is timed.
            unit: What is done.
        """
        with FlopCounterMode(display=False) as flops, Traffic() as traffic, self.uncompiled():
            done = work()
        if callable(per):
            counted = per(done)
            work()  # compiles
            began = time.perf_counter()
            again = per(work())
            taken = (time.perf_counter() - began) / again
        else:
            counted = per
            taken = seconds(work, self.least) / per
        operations = flops.get_total_flops() / counted
        row: dict[str, Any] = {
            "unit": unit,
            "milliseconds": 1e3 * taken,
            "per_second": 1 / taken,
            "gigaflop": operations / 1e9,
            "megabytes": traffic.bytes / counted / 1e6,
        }
        if traffic.products:
            (first, second), _ = traffic.products.most_common(1)[0]
            ceiling = product_rate(first, second, self.device, self.dtype)
            row["product"] = f"{list(first)} x {list(second)}"
            row["ceiling_gigaflops"] = ceiling / 1e9
            row["fraction"] = operations / taken / ceiling
        self.rows[name] = row
        print(f"{name}: {row['milliseconds']:.3g} ms", file=sys.stderr, flush=True)


class Clock(Callback):
    """Seconds from the first environment step on, and what each phase took of them."""

    def __init__(self) -> None:
        self.began = self.seconds = 0.0
        self.before: dict[str, float] = {}
        self.shares: dict[str, float] = {}

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if not self.began:
            self.began = time.perf_counter()
            self.before = dict(trainer.profiler.seconds)  # type: ignore[attr-defined]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.perf_counter() - self.began
        after = trainer.profiler.seconds  # type: ignore[attr-defined]
        self.shares = {
            phase: (after[phase] - spent) / self.seconds for phase, spent in self.before.items()
        }


def run(task: str, steps: int, callback: Callback, options: list[str]) -> None:
    """MPPVE on a task for so many steps, with one more callback."""
    files = ["--config", str(CONF / "mppve.yaml")]
    if task != "InvertedPendulum-v5":
        files += ["--config", str(CONF / "mppve" / f"{task.partition('-')[0].lower()}.yaml")]
    length = ["--trainer.max_epochs", "1", "--data.steps_per_epoch", str(steps)]
    without = ["--checkpoint.every", "0", "--registration.enabled", "false"]
    cli = build([*files, *length, *without, "--compilation.after", "0", *options])
    cli.trainer.callbacks.insert(-1, callback)  # type: ignore[attr-defined]
    cli.trainer.fit(cli.model, cli.datamodule)


def machine(device: torch.device) -> dict[str, Any]:
    """What it is, and what it can do with every thread that torch uses, or with its GPU."""
    on_gpu = device.type == "cuda"
    copied = torch.empty(2**30 if on_gpu else 2**26, device=device)
    side = 8192 if on_gpu else 1024  # a processor without units for bfloat16 needs seconds for more
    large = (side, side)
    rates = {
        str(dtype).removeprefix("torch."): product_rate(large, large, device, dtype) / 1e9
        for dtype in (torch.float32, torch.bfloat16)
    }
    return {
        "processor": platform.processor() or platform.machine(),
        **({"gpu": torch.cuda.get_device_name(device)} if on_gpu else {}),
        "threads": torch.get_num_threads(),
        **({"mkl": lit_mbrl.MKL_KERNELS} if lit_mbrl.MKL_KERNELS else {}),
        "torch": torch.__version__,
        "commit": current_commit(),
        "large_product_gigaflops": rates,
        "large_copy_gigabytes_per_second": 2 * copied.nbytes / seconds(copied.clone, 0.5) / 1e9,
    }


def show(found: dict[str, Any], earlier: dict[str, Any]) -> None:
    """A readable table, with the ratio to an earlier run's times where it has them."""
    print(json.dumps(found["machine"], indent=1))
    head = (
        f"{'phase':24}{'ms':>10}{'a second':>12}{'GFLOP':>9}{'MB':>9}{'ceiling':>9}{'reached':>9}"
    )
    for task, result in found["tasks"].items():
        print(f"\n{task}\n{head}{'before / now':>14}" if earlier else f"\n{task}\n{head}")
        for name, row in result["phases"].items():
            line = (
                f"{name:24}{row['milliseconds']:10.3g}{row['per_second']:12.4g}"
                f"{row['gigaflop']:9.3g}{row['megabytes']:9.3g}"
            )
            if "fraction" in row:
                line += f"{row['ceiling_gigaflops']:9.0f}{row['fraction']:9.0%}"
            old = earlier.get("tasks", {}).get(task, {}).get("phases", {}).get(name)
            if old is not None:
                line = f"{line:82}{old['milliseconds'] / row['milliseconds']:14.2f}"
            print(line + f"  {row.get('product', '')}")
        job = result["job"]
        shares = ", ".join(f"{phase} {share:.0%}" for phase, share in job["shares"].items())
        print(
            f"the whole job, {job['steps']} steps: {job['steps_per_second']:.2f} environment steps "
            f"a second; {shares}, all else {1 - sum(job['shares'].values()):.0%}"
        )


def main() -> int:
    """Measure, print, write, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--tasks", nargs="+", default=["Hopper-v5", "HalfCheetah-v5", "Ant-v5"])
    parser.add_argument("--steps", type=int, default=500, help="of the whole job")
    parser.add_argument(
        "--least", type=float, default=2.0, help="seconds that a phase is timed for"
    )
    parser.add_argument("--json", type=Path, help="write what was found there")
    parser.add_argument("--compare", type=Path, help="an earlier file to compare with")
    given, options = parser.parse_known_args()
    prepare_process()
    found: dict[str, Any] = {"options": options, "tasks": {}}
    target = given.json and given.json.absolute()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for task in given.tasks:
            phases, clock = Phases(given.least), Clock()
            run(task, AT_STEP, phases, options)
            run(task, given.steps, clock, options)
            job = {"steps": given.steps, "steps_per_second": given.steps / clock.seconds}
            found["tasks"][task] = {"phases": phases.rows, "job": {**job, "shares": clock.shares}}
            found = {"machine": phases.machine, **found}
            if target:
                target.write_text(json.dumps(found, indent=1) + "\n")
    show(found, json.loads(given.compare.read_text()) if given.compare else {})
    return 0


if __name__ == "__main__":
    sys.exit(main())
