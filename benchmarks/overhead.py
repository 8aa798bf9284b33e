"""What watching a run costs: logging, progress, evaluation, diagnosis, checkpoints.

    python benchmarks/overhead.py --config conf/mppve.yaml --trainer.max_epochs 1

trains with the options of `lit_mbrl.fit` behind, and prints the seconds of each part for 1,000
environment steps and its share of the wall time of training. The clock runs from the end of the
first environment step to that of the last: neither warm-up nor first fit are counted. A part that
calls another, as an evaluation does that logs, is told without it. What comes once stands below.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any

from lit_mbrl.callbacks import (
    Diagnosis,
    EnvStepCheckpoint,
    Evaluation,
    Filming,
    Progress,
    Registration,
    Results,
    Throughput,
)

from lit_mbrl.fit import main
from lit_mbrl.tracking import RunLogger

STEP, END = "on_train_batch_end", "on_train_end"
PARTS: dict[str, list[tuple[type, str]]] = {
    "logging": [(RunLogger, "log_metrics"), (Throughput, STEP), (Results, STEP)],
    "progress": [(Progress, STEP)],
    "evaluation": [(Evaluation, STEP)],
    "diagnosis": [(Diagnosis, STEP)],
    "checkpoints": [(EnvStepCheckpoint, STEP)],
}
ONCE: dict[str, list[tuple[type, str]]] = {
    "registration": [(Registration, END)],
    "film": [(Filming, END)],
    "last checkpoint": [(EnvStepCheckpoint, END)],
}


class Clock:
    """Seconds by part, each without those of the parts that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]  # of the parts that are running, seconds of those that they called

    def time(self, part: str, owner: type, name: str) -> None:
        """Let a method's time count as this part's."""
        method: Callable[..., Any] = getattr(owner, name)

        @wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                self.seconds[part] += spent - self._inner.pop()
                self._inner[-1] += spent

        setattr(owner, name, timed)


def measure() -> int:
    """Train and print; returns the exit status."""
    clock, ends = Clock(), []
    for part, methods in {**PARTS, **ONCE}.items():
        for owner, name in methods:
            clock.time(part, owner, name)
    last_of_a_step = getattr(EnvStepCheckpoint, STEP)

    def marked(*args: Any, **kwargs: Any) -> None:
        last_of_a_step(*args, **kwargs)
        ends.append(time.perf_counter())

    setattr(EnvStepCheckpoint, STEP, marked)
    status = main(sys.argv[1:])
    if status == 0:
        steps, wall = len(ends) - 1, ends[-1] - ends[0]
        print(f"{steps:,} environment steps in {wall:.1f} s; seconds for 1,000 of them, and share:")
        for part in PARTS:
            spent = clock.seconds[part]
            print(f"{part:<16} {1000 * spent / steps:8.2f} {spent / wall:8.2%}")
        for part in ONCE:
            print(f"{part:<16} {clock.seconds[part]:8.2f} once, at the end")
    return status


if __name__ == "__main__":
    sys.exit(measure())
