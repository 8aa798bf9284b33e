"""D_env and D_model."""

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyTensorStorage, ReplayBuffer

from lit_mbrl.data.packing import Entry, layout_of, pack, unpack
from lit_mbrl.data.windows import windows_from
from lit_mbrl.devices import send


class EnvironmentReplay:
    """D_env: real transitions in the order in which they happened, read as windows of k steps.

    The storage is a TorchRL buffer of single transitions. A window is known by its first step; it
    is listed once it is complete: k steps long, or ended by a termination. The steps before a
    time limit that have fewer than k - 1 successors start no window. Reading windows is one indexed
    read of k rows each, however large the buffer is.

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
        self._buffer = ReplayBuffer(storage=LazyTensorStorage(capacity, device=device))
        self.steps = 0  # transitions ever added: the index of the next one
        self._pending = 0  # the oldest step whose window is not complete
        self._starts = _Starts(capacity)
        self._full_starts = _Starts(capacity)

    def __len__(self) -> int:
        return min(self.steps, self.capacity)

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
        row = send(row, self.device)
        if log_prob is not None:
            row["log_prob"] = log_prob
        self._buffer.add(row[0])
        step, self.steps = self.steps, self.steps + 1
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
        rows = self._buffer.storage[: len(self)].cpu().apply(_stored) if len(self) else None
        return {
            "rows": None if rows is None else rows.to_dict(),
            "capacity": self.capacity,
            "steps": self.steps,
            "pending": self._pending,
            "starts": self._starts.snapshot(),
            "full_starts": self._full_starts.snapshot(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot` returned, into an empty buffer of the same capacity."""
        self.steps, self._pending = snapshot["steps"], snapshot["pending"]
        if len(self):
            rows = TensorDict(snapshot["rows"], batch_size=[len(self)])
            _refill(self._buffer, send(rows, self.device), self.steps % self.capacity)
        self._starts.restore(snapshot["starts"])
        self._full_starts.restore(snapshot["full_starts"])

    def transitions(self) -> TensorDict:
        """All transitions [N] that are kept, oldest first."""
        return self._rows(torch.arange(self.steps - len(self), self.steps))

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
        return self._rows(steps.clamp(max=self.steps - 1))

    def _rows(self, steps: Tensor) -> TensorDict:
        return self._buffer.storage[send(steps % self.capacity, self.device)]


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
        self.device = device
        self.capacity = 0
        self._added = 0  # windows put into the present buffer, so that the oldest is known
        self._buffer: ReplayBuffer | None = None
        self._layout: list[Entry] = []

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    def resize(self, capacity: int) -> None:
        """Change the capacity, keeping the newest windows that fit."""
        if capacity == self.capacity:
            return
        kept = self._rows()[-capacity:] if len(self) else None
        self.capacity, self._added = capacity, 0
        self._buffer = ReplayBuffer(storage=LazyTensorStorage(capacity, device=self.device))
        if kept is not None:
            self._extend(kept)

    def extend(self, windows: TensorDict) -> None:
        """Append windows [N]; the oldest make room."""
        if len(windows):
            layout = layout_of(windows)
            assert layout == self._layout or not len(self), "windows of another kind are kept"
            self._layout = layout
            self._extend(pack(windows[-self.capacity :], self._layout))

    def windows(self) -> TensorDict:
        """All windows that are kept, oldest first."""
        return unpack(self._rows(), self._layout)

    def sample(self, number: int) -> TensorDict:
        """`number` windows drawn uniformly with replacement."""
        assert self._buffer is not None, "nothing was ever stored"
        drawn = send(torch.randint(len(self), (number,)), self.device)
        return unpack(self._buffer.storage[drawn], self._layout)

    def snapshot(self) -> dict[str, Any]:
        """All that is kept, as plain values and tensors."""
        rows = _stored(self._buffer.storage[: len(self)]) if self._buffer and len(self) else None
        layout = [tuple(entry) for entry in self._layout]
        return {"rows": rows, "layout": layout, "capacity": self.capacity, "added": self._added}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot` returned, into an empty buffer."""
        self._layout = [Entry(*entry) for entry in snapshot["layout"]]
        if snapshot["capacity"]:
            self.resize(snapshot["capacity"])
            self._added = snapshot["added"]
            assert self._buffer is not None
            if len(self):
                rows = send(snapshot["rows"], self.device)
                _refill(self._buffer, rows, self._added % self.capacity)

    def _rows(self) -> Tensor:
        """The rows that are kept, oldest first."""
        assert self._buffer is not None, "nothing was ever stored"
        order = torch.arange(self._added - len(self), self._added) % self.capacity
        rows: Tensor = self._buffer.storage[send(order, self.device)]
        return rows

    def _extend(self, rows: Tensor) -> None:
        assert self._buffer is not None, "resize() gives the buffer its capacity"
        self._buffer.extend(rows)
        self._added += len(rows)


def _stored(values: Tensor) -> Tensor:
    """Values as they lie; on a CPU they are not copied."""
    # By way of numpy, because a slice of torch's would be saved with all of its storage.
    return torch.from_numpy(values.cpu().numpy())


def _refill(buffer: ReplayBuffer, rows: TensorDict | Tensor, cursor: int) -> None:
    """Lay the rows where they lay, and write the next one at `cursor`."""
    buffer.extend(rows)
    buffer.writer.load_state_dict({"_cursor": cursor})
