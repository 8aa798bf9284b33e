"""Batched matrix products in which no thread waits for another."""

import torch
from torch import Tensor

LARGE = 4_000_000
"""Multiplications of a matrix's product from which on its threads are worth looking after."""


def bmm(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    """As `torch.bmm(a, b, out=out)`, to rounding.

    A processor's batched product gives each thread whole matrices: of five on two threads one
    computes three, and a sixth of the time of both is lost. Here the odd one is a product of its
    own, which its threads share.

    Args:
        a: [E, M, K].
        b: [E, K, N].
        out: [E, M, N], which is written and returned.
    """
    odd = len(a) % torch.get_num_threads()
    if (
        odd in (0, len(a))
        or not out.is_cpu
        or out.dtype != torch.float32
        or a[0].numel() * b.shape[-1] < LARGE
    ):
        return torch.bmm(a, b, out=out)
    even = len(a) - odd
    torch.bmm(a[:even], b[:even], out=out[:even])
    for i in range(even, len(a)):
        torch.bmm(a[i : i + 1], b[i : i + 1], out=out[i : i + 1])
    return out
