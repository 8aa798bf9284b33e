"""Linear layers against torch's."""

import pytest
import torch
import torch.nn.functional as F

from lit_mbrl.networks.linear import Float32Linear, Linear

INPUTS, OUTPUTS = 5, 7


@pytest.mark.parametrize("shape", [(), (1,), (6,), (3, 4), (0,)])
def test_outputs_and_gradients_are_torchs(shape: tuple[int, ...]) -> None:
    layer, x = Linear(INPUTS, OUTPUTS), torch.randn(*shape, INPUTS, requires_grad=True)
    weights = torch.randn(*shape, OUTPUTS)
    found, expected = layer(x), F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, expected)
    wanted = [x, layer.weight, layer.bias]
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), wanted),
        torch.autograd.grad((expected * weights).sum(), wanted),
    )


def test_precision_under_autocast() -> None:
    """A layer's outputs are bfloat16 as torch's are, but where they are to stay in float32."""
    x, exact = torch.randn(6, INPUTS), Float32Linear(INPUTS, OUTPUTS)
    expected = F.linear(x, exact.weight, exact.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(INPUTS, OUTPUTS)(x).dtype == torch.bfloat16
        torch.testing.assert_close(exact(x), expected)
        assert exact(x.bfloat16()).dtype == torch.float32
