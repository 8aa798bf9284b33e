"""Acting by planning anew at every step, from where the last plan has come to."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_mbrl.behaviour import Behaviour
from lit_mbrl.planning.planner import Solution, Start


class PlanningBehaviour(Behaviour):
    """Takes the first action of a plan, and remembers the rest of it: model predictive control.

    Args:
        plan: Plans for states [B, S], started from what earlier ones left, or from None.
        copies: Of the task.
        explore: Act by the solution's `sample` in place of its plan.
    """

    def __init__(
        self,
        plan: Callable[[Tensor, Start | None], Solution],
        copies: int,
        explore: bool = False,
    ):
        self.plan, self.copies, self.explore = plan, copies, explore
        self.memory: Start | None = None  # of every copy

    @torch.no_grad()
    def __call__(self, observation: Tensor, copies: Tensor, begins: Tensor) -> Tensor:
        start = None
        if self.memory is not None:
            # One that was restored from a checkpoint lies on the CPU.
            self.memory = Start(*(part.to(observation.device) for part in self.memory))
            start = Start(*(_forget(part[copies], begins) for part in self.memory))
        solution = self.plan(observation, start)
        if self.memory is None:
            new = (x.new_zeros(self.copies, *x.shape[1:]) for x in solution.start)
            self.memory = Start(*new)
        for memory, part in zip(self.memory, solution.start, strict=True):
            memory[copies] = part
        return (solution.sample if self.explore else solution.action)[:, 0]

    def snapshot(self) -> dict[str, Any]:
        return {} if self.memory is None else self.memory._asdict()

    def restore(self, snapshot: dict[str, Any]) -> None:
        self.memory = Start(**snapshot) if snapshot else None


def _forget(memory: Tensor, begins: Tensor) -> Tensor:
    """Zeros where an episode begins."""
    return memory.masked_fill(begins.view(-1, *[1] * (memory.ndim - 1)), 0.0)
