"""TensorDicts as rows of one tensor: a row that is drawn at random is one read of memory, not one
for each of its entries, and memory is what drawing from millions of rows waits for."""

from math import prod
from typing import NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor


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
    """What `pack` packed, as views of [N, W] but for the booleans."""
    rows = TensorDict({}, batch_size=packed.shape[:1], device=packed.device)
    parts = packed.split([prod(entry.shape) for entry in layout], 1)
    for entry, part in zip(layout, parts, strict=True):
        values = part.reshape(len(packed), *entry.shape)
        rows[entry.name] = values != 0 if entry.boolean else values
    return rows
