"""TensorDicts as rows of one tensor: a row that is drawn at random is one read of memory, not one
for each of its entries, and memory is what drawing from millions of rows waits for."""

from math import prod
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.data import LazyTensorStorage, ReplayBuffer

from lit_mbrl.devices import send


class Entry(NamedTuple):
    """What columns hold: the entry's name, its shape in one row, and whether it is a boolean."""

    name: tuple[str, ...]
    shape: tuple[int, ...]
    boolean: bool


def layout_of(rows: TensorDict) -> list[Entry]:
    """The entries of a TensorDict [N] of booleans and of floating numbers of one precision."""
    entries = []
    for name, values in rows.items(include_nested=True, leaves_only=True):
        path = (name,) if isinstance(name, str) else tuple(name)
        entries.append(Entry(path, tuple(values.shape[1:]), values.dtype == torch.bool))
    return entries


def pack(rows: TensorDict, layout: list[Entry]) -> Tensor:
    """A TensorDict [N] as a tensor [N, W]; booleans become 0 and 1."""
    number = next(rows[entry.name].dtype for entry in layout if not entry.boolean)
    parts = (rows[entry.name].reshape(len(rows), -1).to(number) for entry in layout)
    return torch.cat(list(parts), 1)


def unpack(packed: Tensor, layout: list[Entry]) -> TensorDict:
    """What `pack` packed, as views of [..., W] but for the booleans."""
    shape = packed.shape[:-1]
    rows = TensorDict({}, batch_size=shape, device=packed.device)
    parts = packed.split([prod(entry.shape) for entry in layout], -1)
    for entry, part in zip(layout, parts, strict=True):
        values = part.reshape(*shape, *entry.shape)
        rows[entry.name] = values != 0 if entry.boolean else values
    return rows


class PackedReplay:
    """The newest `capacity` rows of one layout, in a TorchRL buffer of one tensor.

    Args:
        capacity: Rows that are kept; the oldest go first.
        device: Where they are kept.
    """

    def __init__(self, capacity: int, device: torch.device | str = "cpu"):
        self.capacity, self.device = capacity, device
        self.added = 0  # rows put in, those that were cut not counted: the number of the next one
        self.layout: list[Entry] = []
        self._buffer = ReplayBuffer(storage=LazyTensorStorage(capacity, device=device))

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def extend(self, rows: Tensor, layout: list[Entry]) -> None:
        """Append packed rows [N, W], the last ones alone if they are more than there is room for.

        Raises:
            AssertionError: If rows of another layout are kept.
        """
        assert layout == self.layout or not len(self), "rows of another kind are kept"
        self.layout = layout
        rows = rows[-self.capacity :]
        if len(rows) == 1:  # by itself TorchRL stores one without asking a GPU for anything
            self._buffer.add(rows[0])
        else:
            self._buffer.extend(rows)
        self.added += len(rows)

    def rows(self, numbers: Tensor) -> TensorDict:
        """The rows [...] of the numbers [...], as a TensorDict.

        Args:
            numbers: Counted from the first row ever put in; modulo the capacity.
        """
        return unpack(self._at(numbers), self.layout)

    def newest(self, number: int) -> Tensor:
        """The newest rows [N, W], as many as there are of `number`, oldest first."""
        return self._at(torch.arange(self.added - min(number, len(self)), self.added))

    def _at(self, numbers: Tensor) -> Tensor:
        # Half as many bytes: a driver may wait before it takes more than 64 KB from such memory.
        places = send((numbers.flatten() % self.capacity).int(), self.device)
        # By rows, which copies each as a whole; indexed, it takes two to three times as long.
        packed: Tensor = self._buffer.storage[:].index_select(0, places)
        return packed.view(*numbers.shape, packed.shape[1])

    def snapshot(self) -> dict[str, Any]:
        """All that is kept, as plain values and tensors; on a CPU rows are not copied."""
        return {
            # By way of numpy, because a slice of torch's would be saved with all of its storage.
            "rows": torch.from_numpy(self._buffer.storage[:].cpu().numpy()) if len(self) else None,
            "layout": [tuple(entry) for entry in self.layout],
            "capacity": self.capacity,
            "added": self.added,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot` returned, into an empty buffer of the same capacity."""
        self.layout = [Entry(*entry) for entry in snapshot["layout"]]
        self.added = snapshot["added"]
        if len(self):
            self._buffer.extend(send(snapshot["rows"], self.device))
            self._buffer.writer.load_state_dict({"_cursor": self.added % self.capacity})
