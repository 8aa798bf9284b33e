"""Times plans of CEM through an ensemble, beside what the machine could do.

    python benchmarks/planning.py --json new.json
    python benchmarks/planning.py --horizons 30 --candidates 500 --particles 20 --rows 1024

The sizes of the model are PETS's for HalfCheetah unless they are given, and TS-infinity takes the
particles through it, or TS1. Counted are the floating-point operations of a plan's matrix products,
by torch's flop counter. The ceiling is that of a large product, taken in the same run before and
after each plan, because a machine may be slower at times; the fraction is the time that
the counted operations would take at it over the time that they took. On a GPU (`--device cuda`) a
plan is a CUDA graph, as it is in a run there whose updates are compiled. With `--compiled` the
model's steps are compiled, as they are then, and the plan is timed in turns with one that is not:
the least of three times each. With `--precision bf16-mixed` plans are imagined as under
`trainer.precision bf16-mixed`, and the ceiling is that of a product in bfloat16, not float32.
"""

import lit_mbrl  # isort: skip  # noqa: F401  # before torch, see lit_mbrl.mkl

import argparse
import json
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from phases import machine, product_rate, seconds
from torch.utils.flop_counter import FlopCounterMode

from lit_mbrl.capture import Captured
from lit_mbrl.compilation import Compiler
from lit_mbrl.dynamics import Dynamics
from lit_mbrl.planning import CEM, ImaginedReturn, Problem

LARGE = (1024, 1024)


def measure(
    given: argparse.Namespace, horizon: int, candidates: int, particles: int
) -> dict[str, Any]:
    """Plans a second for so many starts at a time, and how near they come to the ceiling."""
    dynamics = Dynamics(
        given.observation_size,
        given.action_size,
        "never",
        given.hidden_sizes,
        [0.0] * (len(given.hidden_sizes) + 1),
        given.networks,
        given.elites,
    ).to(given.device)
    compiler = Compiler()
    mixed = given.precision == "bf16-mixed"
    kind = torch.bfloat16 if mixed else torch.float32
    device = torch.device(given.device)
    context = partial(torch.autocast, device.type, kind, enabled=mixed, cache_enabled=False)
    imagined = ImaginedReturn(
        dynamics, given.sampling, particles, rows=given.rows, autocast=context
    )
    score = imagined.compiled(compiler)
    planner = CEM(horizon, candidates, candidates // 10, given.iterations)
    state = torch.zeros(given.starts, given.observation_size, device=given.device)
    problem = Problem(score, given.action_size)
    with FlopCounterMode(display=False) as flops:
        planner(problem, state)
    before = product_rate(LARGE, LARGE, state.device, kind)
    plans = {
        compiled: Captured("the plan", planner) if state.is_cuda else planner
        for compiled in ([False, True] if given.compiled else [False])
    }
    times: dict[bool, list[float]] = {compiled: [] for compiled in plans}
    for _ in range(3 if given.compiled else 1):
        for compiled, plan in plans.items():
            compiler.enabled = compiled
            plan(problem, state)
            times[compiled].append(seconds(lambda: plan(problem, state), given.least))  # noqa: B023
    taken = min(times[given.compiled])
    ceiling = (before + product_rate(LARGE, LARGE, state.device, kind)) / 2
    operations = flops.get_total_flops()
    return {
        "horizon": horizon,
        "candidates": candidates,
        "particles": particles,
        "milliseconds": 1e3 * taken,
        **({"uncompiled_milliseconds": 1e3 * min(times[False])} if given.compiled else {}),
        "plans_per_second": given.starts / taken,
        "gigaflop": operations / 1e9,
        "ceiling_gigaflops": ceiling / 1e9,
        "fraction": operations / taken / ceiling,
    }


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = parser.add_argument
    add("--horizons", type=int, nargs="+", default=[3, 30])
    add("--candidates", type=int, nargs="+", default=[100, 500])
    add("--particles", type=int, nargs="+", default=[4, 20], help="multiples of the elites")
    add("--sampling", default="ts_infinity", help="or ts1, as LOOP on InvertedPendulum-v5")
    add("--iterations", type=int, default=5)
    add("--starts", type=int, default=1, help="states that are planned for at once")
    add("--observation_size", type=int, default=17)
    add("--action_size", type=int, default=6)
    add("--hidden_sizes", type=int, nargs="+", default=[200, 200, 200, 200])
    add("--networks", type=int, default=5)
    add("--elites", type=int, default=4)
    add("--rows", type=int, help="particles imagined at a time")
    add("--device", default="cpu")
    add("--compiled", action="store_true", help="compile the model's steps, and time both")
    add("--precision", choices=["32-true", "bf16-mixed"], default="32-true", help="of plans")
    add("--products", default="highest", help="torch's precision of float32 products, or high")
    add("--least", type=float, default=1.0, help="seconds that a plan is timed for")
    add("--json", type=Path, help="write what was found there")
    given = parser.parse_args()
    torch.set_float32_matmul_precision(given.products)
    about = machine(torch.device(given.device))
    print(json.dumps(about, indent=1))
    print(
        f"{'H':>4}{'N':>6}{'P':>4}{'ms':>10}{'plans/s':>10}{'GFLOP':>9}{'ceiling':>9}{'reached':>9}"
    )
    found = []
    for sizes in product(given.horizons, given.candidates, given.particles):
        row = measure(given, *sizes)
        found.append(row)
        print(
            f"{row['horizon']:4}{row['candidates']:6}{row['particles']:4}"
            f"{row['milliseconds']:10.4g}{row['plans_per_second']:10.3g}{row['gigaflop']:9.3g}"
            f"{row['ceiling_gigaflops']:9.0f}{row['fraction']:9.0%}"
            + (f"  uncompiled {row['uncompiled_milliseconds']:.4g} ms" if given.compiled else ""),
            flush=True,
        )
    if given.json:
        settings = {name: value for name, value in vars(given).items() if name != "json"}
        result = {"machine": about, "settings": settings, "plans": found}
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
