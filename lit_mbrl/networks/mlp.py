"""E multilayer perceptrons of one shape, evaluated together as batched matrix products."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_mbrl.precision import float32
from lit_mbrl.products import bmm

NARROW = 32
"""Outputs below which a layer is computed transposed: on processors 1.1 times as fast with 24
outputs, 2 to 4 times with 10, and its gradient likewise."""


class EnsembleMLP(nn.Module):
    """An ensemble of `networks` perceptrons: [E, B, in] -> [E, B, out].

    A layer is one batched product: E networks cost E matrix products and one Python call.
    A network's weights are the rows `weights[l][e]` and `biases[l][e]` and meet no other network's.

    Args:
        sizes: Widths of the layers, from the input to the output.
        networks: Number of networks, E.
        activation: Applied after every layer but the last.
    """

    def __init__(
        self, sizes: Sequence[int], networks: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.networks = networks
        self.activation = activation
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(torch.empty(networks, i, o) for i, o in pairs)
        self.biases = nn.ParameterList(torch.empty(networks, 1, o) for _, o in pairs)
        # The default of torch.nn.Linear, for each network on its own.
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1.0 / math.sqrt(weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Outputs of all networks, or of `members` alone.

        Args:
            x: Inputs [E, B, in], one slice for each network evaluated.
            members: Indices [M] of the networks to evaluate (x is then [M, B, in]); all if None.

        Returns:
            Outputs [E, B, out] (or [M, B, out]).
        """
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if members is not None:
                weight, bias = weight[members], bias[members]
            if layer in (0, last):
                with float32(x):
                    x = affine(x.float(), weight, bias)
            else:
                x = affine(x, weight, bias)
            if layer < last:
                x = self.activation(x)
        return x


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x weight + bias for each network: [E, B, in], [E, in, out], [E, 1, out] -> [E, B, out]."""
    outputs = weight.shape[-1]
    if outputs == 1:  # a dot product a row: as a batched product five times as slow
        return torch.linalg.vecdot(x, weight.mT).unsqueeze(-1) + bias
    # Not baddbmm, which copies the bias to every row and reads it again.
    if outputs < NARROW:
        return torch.bmm(weight.mT, x.mT).add_(bias.mT).mT
    return _product(x, weight).add_(bias)


def lies_transposed(x: Tensor) -> bool:
    """Whether x [..., B, out] lies in memory column by column, as a narrow layer's outputs do.

    Compiled functions go through such outputs number by number unless what follows is written of
    their transposes.
    """
    return x.stride(-1) > x.stride(-2)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """x weight. (What is compiled has `bmm` put in its place, see `compilation`.)"""
    automatic = torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type)
    if automatic or torch.compiler.is_compiling():
        return torch.bmm(x, weight)
    return bmm(x, weight, out=x.new_empty(*x.shape[:-1], weight.shape[-1]))
