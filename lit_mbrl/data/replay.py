"""D_env and D_model."""

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.data.packing import Entry, PackedReplay, layout_of, pack
from lit_mbrl.data.windows import windows_from
from lit_mbrl.devices import send


class EnvironmentReplay:
    """D_env: real transitions in the order in which they happened, read as windows of k steps.

    The storage is a TorchRL buffer of single transitions, each a row of one tensor. A window is
    known by its first step; it is listed once it is complete: k steps long, or ended by a
    termination. The steps before a time limit that have fewer than k - 1 successors start no
    window. Reading windows is one indexed read of k rows each, however large the buffer is.

    Args:
        capacity: Transitions kept; the oldest go first.
        plan_length: k.
        device: Where the transitions are kept.
        with_path: Whether windows have all the states on their way.
        recent: Draw from the newest so many windows; from all if None.
    """

    def __init__(
        self,
        capacity: int,
        plan_length: int,
        device: torch.device | str = "cpu",
        with_path: bool = False,
        recent: int | None = None,
    ):
        self.capacity = capacity
        self.plan_length = plan_length
        self.device = device
        self.with_path = with_path
        self.recent = recent
        self._kept = PackedReplay(capacity, device)
        self._pending = 0  # the oldest step whose window is not complete
        self._starts = _Starts(capacity)
        self._full_starts = _Starts(capacity)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def steps(self) -> int:
        """Transitions ever added: the index of the next one."""
        return self._kept.added

    def add(self, transition: TensorDictBase, log_prob: Tensor | None = None) -> None:
        """Append one transition [1] with the keys of TorchRL's collector.

        Args:
            transition: `observation` [1, S], `action` [1, A] and, under `next`, `observation`,
                `reward` [1, 1], `terminated` [1, 1] and `truncated` [1, 1]; on the processor,
                which reads from it whether the episode goes on.
            log_prob: log pi(a|s) [1] under the policy that took the action, on the device of the
                buffer; with all transitions or with none.
        """
        following = transition["next"]
        row = TensorDict(
            {
                "observation": transition["observation"],
                "action": transition["action"],
                "reward": following["reward"].squeeze(-1),
                "next": {
                    "observation": following["observation"],
                    "terminated": following["terminated"].squeeze(-1),
                },
            },
            batch_size=[1],
        )
        layout = layout_of(row)
        packed = send(pack(row, layout), self.device)  # one copy to a GPU
        if log_prob is not None:
            packed = torch.cat([packed, log_prob.unsqueeze(1)], 1)
            layout.append(Entry(("log_prob",), (), False))
        step = self.steps
        self._kept.extend(packed, layout)
        self._starts.drop_before(self.steps - self.capacity)
        self._full_starts.drop_before(self.steps - self.capacity)
        if step - self._pending + 1 == self.plan_length:
            self._starts.append(self._pending)
            self._full_starts.append(self._pending)
            self._pending += 1
        if bool(following["terminated"]):
            for start in range(self._pending, self.steps):
                self._starts.append(start)
            self._pending = self.steps
        elif bool(following["truncated"]):
            self._pending = self.steps

    def cut(self) -> None:
        """End the present episode as a time limit would: no window will cross this point."""
        self._pending = self.steps

    def draw_from_here(self) -> None:
        """Draw no window any more that is complete by now; the model is still fitted to all."""
        self._starts.skip()

    def snapshot(self) -> dict[str, Any]:
        """All that is kept, as plain values and tensors."""
        kept = self._kept.snapshot()
        kept["steps"] = kept.pop("added")
        return {
            **kept,
            "pending": self._pending,
            "starts": self._starts.snapshot(),
            "full_starts": self._full_starts.snapshot(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot` returned, into an empty buffer of the same capacity."""
        if "layout" not in snapshot:
            snapshot = _packed(snapshot)
        self._kept.restore({**snapshot, "added": snapshot["steps"]})
        self._pending = snapshot["pending"]
        self._starts.restore(snapshot["starts"])
        self._full_starts.restore(snapshot["full_starts"])

    def transitions(self) -> TensorDict:
        """All transitions [N] that are kept, oldest first."""
        return self._kept.rows(torch.arange(self.steps - len(self), self.steps))

    def starts(self) -> Tensor:
        """First steps of all complete windows, counted from the first transition ever added."""
        return self._starts.values()

    def full_starts(self) -> Tensor:
        """Those of them whose windows have all k steps: where imagination can begin."""
        return self._full_starts.values()

    def windows(self, starts: Tensor) -> TensorDict:
        """The windows [N] that begin at `starts` [N]."""
        return windows_from(self._segments(starts), self.with_path)

    def sample_windows(self, number: int) -> TensorDict:
        """`number` windows drawn uniformly with replacement, from the recent ones."""
        return self.windows(self._starts.sample(number, self.recent))

    def sample_segments(self, number: int) -> TensorDict:
        """Segments [number, k] of k real steps with no episode's end before the last of them.

        Imagination branches from the last step's observation with the steps before it as past.
        """
        return self._segments(self._full_starts.sample(number))

    def _segments(self, starts: Tensor) -> TensorDict:
        steps = starts.unsqueeze(-1) + torch.arange(self.plan_length)
        # A window that a termination cut short may reach beyond the newest step: what is read
        # there instead is masked.
        return self._kept.rows(steps.clamp(max=self.steps - 1))


def _packed(snapshot: dict[str, Any]) -> dict[str, Any]:
    """A snapshot of D_env as of a version that kept each entry as a tensor of its own."""
    number = min(snapshot["steps"], snapshot["capacity"])
    rows = TensorDict(snapshot["rows"], batch_size=[number])
    layout = layout_of(rows)
    return {**snapshot, "rows": pack(rows, layout), "layout": layout}


class _Starts:
    """Ascending step indices in a ring: appended at the end, dropped at the front."""

    def __init__(self, capacity: int):
        self._ring = torch.empty(capacity, dtype=torch.int64)
        self._first = self._end = 0
        self._skipped = 0  # those that are not drawn

    def append(self, step: int) -> None:
        self._ring[self._end % len(self._ring)] = step
        self._end += 1

    def drop_before(self, step: int) -> None:
        while self._first < self._end and self._ring[self._first % len(self._ring)] < step:
            self._first += 1

    def skip(self) -> None:
        self._skipped = self._end

    def snapshot(self) -> dict[str, Any]:
        return {"values": self.values(), "first": self._first, "skipped": self._skipped}

    def restore(self, snapshot: dict[str, Any]) -> None:
        self._first, self._skipped = snapshot["first"], snapshot["skipped"]
        self._end = self._first + len(snapshot["values"])
        self._ring[torch.arange(self._first, self._end) % len(self._ring)] = snapshot["values"]

    def values(self) -> Tensor:
        return self._ring[torch.arange(self._first, self._end) % len(self._ring)]

    def sample(self, number: int, newest: int | None = None) -> Tensor:
        first = max(self._first, self._skipped)
        if newest is not None:
            first = max(first, self._end - newest)
        drawn = torch.randint(first, self._end, (number,))
        return self._ring[drawn % len(self._ring)]


class ImaginedReplay:
    """D_model: imagined windows, the newest `capacity` of them, each a row of one tensor.

    Args:
        device: Where the windows are kept.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        self._kept = PackedReplay(0, device)

    @property
    def capacity(self) -> int:
        """How many windows are kept; none before it was set by `resize`."""
        return self._kept.capacity

    def __len__(self) -> int:
        return len(self._kept)

    def resize(self, capacity: int) -> None:
        """Change the capacity, keeping the newest windows that fit."""
        if capacity == self.capacity:
            return
        before, self._kept = self._kept, PackedReplay(capacity, self._kept.device)
        if len(before):
            self._kept.extend(before.newest(capacity), before.layout)

    def extend(self, windows: TensorDict) -> None:
        """Append windows [N]; the oldest make room."""
        if len(windows):
            layout = layout_of(windows)
            self._kept.extend(pack(windows, layout), layout)

    def windows(self) -> TensorDict:
        """All windows that are kept, oldest first."""
        added = self._kept.added
        return self._kept.rows(torch.arange(added - len(self), added))

    def sample(self, number: int) -> TensorDict:
        """`number` windows drawn uniformly with replacement."""
        return self._kept.rows(torch.randint(len(self), (number,)))

    def snapshot(self) -> dict[str, Any]:
        """All that is kept, as plain values and tensors."""
        return self._kept.snapshot()

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot` returned, into an empty buffer."""
        self.resize(snapshot["capacity"])
        self._kept.restore(snapshot)
