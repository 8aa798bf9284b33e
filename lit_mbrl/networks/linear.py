"""Linear layers of a single network."""

from torch import Tensor, nn

from lit_mbrl.precision import float32


class Linear(nn.Linear):
    """Torch's, with the bias added after the product.

    Torch copies the bias to every row first, and has the product add to it; in what is compiled the
    addition here is part of the activation that follows.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Outputs [..., out] for inputs [..., in]."""
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
