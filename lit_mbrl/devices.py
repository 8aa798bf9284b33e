"""Copies to the agent's device."""

from typing import TypeVar

import torch
from tensordict import TensorDictBase
from torch import Tensor

Values = TypeVar("Values", Tensor, TensorDictBase)


def send(values: Values, device: torch.device | str) -> Values:
    """A copy to a device for which the processor does not wait; itself, if it is there already.

    On MPS it waits: there the copy may begin when the values are gone (pytorch issue 83015).
    """
    waits = torch.device(device).type == "mps"
    return values.to(device, non_blocking=not waits)
