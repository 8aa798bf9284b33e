"""The policy as it acts in copies of a task, with what it remembers of each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Behaviour:
    """A policy that acts in copies of a task, and remembers nothing.

    Args:
        act: Actions [B, A] in [-1, 1] for observations [B, S].
        device: Where it takes observations and leaves actions; the algorithm's if None.
    """

    device: torch.device | None = None  # of those that have a constructor of their own

    def __init__(self, act: Callable[[Tensor], Tensor], device: torch.device | None = None):
        self.act, self.device = act, device

    def __call__(self, observation: Tensor, copies: Tensor, begins: Tensor) -> Tensor:
        """Act once in some of the copies.

        Args:
            observation: s [B, S].
            copies: Which copies they are of [B], each at most once.
            begins: Whether an episode of theirs begins there [B].

        Returns:
            Actions [B, A] in [-1, 1].
        """
        return self.act(observation)

    def snapshot(self) -> dict[str, Any]:
        """What it remembers, as tensors."""
        return {}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Remember what `snapshot` returned."""
