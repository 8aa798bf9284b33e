"""Linear layers of a single network."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_mbrl.precision import float32


class Linear(nn.Linear):
    """Torch's, with the bias added after the product in what is compiled without gradients.

    On a processor torch copies the bias to every row first, and has the product add to it; compiled
    code adds it in one pass with the activation that follows. Elsewhere that would be a pass more,
    and the weight's gradient of such a product lies transposed.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Outputs [..., out] for inputs [..., in]."""
        if torch.is_grad_enabled() or not torch.compiler.is_compiling():
            return super().forward(input)
        # A batch of one: a plain product with an addition would be compiled into torch's form.
        rows = input.reshape(1, -1, self.in_features)
        product = rows.bmm(self.weight.mT.unsqueeze(0)).add_(self.bias)
        return product.view(*input.shape[:-1], self.out_features)


class Float32Linear(Linear):
    """A linear layer that autocast leaves alone."""

    def forward(self, input: Tensor) -> Tensor:
        """Outputs [..., out] in float32 for inputs [..., in] of any precision."""
        with float32(input):
            return super().forward(input.float())


def perceptron(inputs: int, hidden_sizes: Sequence[int], outputs: int) -> nn.Sequential:
    """Layers with a ReLU between them, the first and the last in float32 under autocast too.

    Args:
        inputs: Width of the input.
        hidden_sizes: Widths of the hidden layers.
        outputs: Width of the output, which is linear.
    """
    layers: list[nn.Module] = [Float32Linear(inputs, hidden_sizes[0])]
    for i, o in pairwise(hidden_sizes):
        layers += [nn.ReLU(inplace=True), Linear(i, o)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True), Float32Linear(hidden_sizes[-1], outputs))
