"""Mixed precision: what stays in float32 under `trainer.precision: bf16-mixed`.

Lightning's autocast covers `training_step`; `Retraining` covers fits and imagination with it, and
`ImaginedReturn` the scores of plans (`Agent.autocast`). Under it the products of hidden layers with
hidden layers are bfloat16; nearly all of the time goes there. Networks read their inputs and write
their outputs in float32: bfloat16 cannot tell 1.000 from 1.003, and a state, a value or a
log-variance needs more. So targets, log-probabilities, scalers, losses, gradients of parameters and
optimizers are float32.
"""

import time
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def float32(tensor: Tensor) -> AbstractContextManager[None]:
    """A context in which nothing on the tensor's device is autocast."""
    return torch.autocast(tensor.device.type, enabled=False)


def bfloat16_cost(device: torch.device) -> float:
    """How many times as long as in float32 a product of hidden layers' size takes in bfloat16.

    Half as long where there are units for it; a hundred times on a processor that has none, where
    torch multiplies number by number.
    """
    seconds = []
    for kind in (torch.bfloat16, torch.float32):
        factor = torch.ones(256, 256, dtype=kind, device=device)
        least = float("inf")
        for _ in range(3):
            began = time.perf_counter()
            float((factor @ factor)[0, 0])  # waits for the device
            least = min(least, time.perf_counter() - began)
        seconds.append(least)
    return seconds[0] / seconds[1]


def advice(cost: float) -> str | None:
    """A line for who asks for bf16-mixed at a cost, see `bfloat16_cost`, that does not pay."""
    if cost < 1.5:
        return None
    return (
        f"trainer.precision: bf16-mixed takes {cost:.0f} times as long as 32-true here: "
        "this machine has no units for bfloat16"
    )
