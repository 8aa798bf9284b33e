"""Linear layers against torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lit_mbrl.compilation import Compiler
from lit_mbrl.networks.linear import Float32Linear, Linear

INPUTS, OUTPUTS = 5, 7


def compiled(layer: Linear, x: Tensor) -> Tensor:
    """A layer's outputs, compiled and without gradients."""
    compiler = Compiler()
    compiler.enabled = True
    found: Tensor = compiler.call("a layer", layer.forward, x)
    return found


@pytest.mark.parametrize("shape", [(), (6,), (3, 4)])
def test_compiled_outputs_are_torchs(shape: tuple[int, ...]) -> None:
    layer, x = Linear(INPUTS, OUTPUTS), torch.randn(*shape, INPUTS)
    expected = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(compiled(layer, x), expected)
    across = torch.randn(INPUTS, *shape).movedim(0, -1)  # which lies otherwise in memory
    torch.testing.assert_close(compiled(layer, across), F.linear(across, layer.weight, layer.bias))


def test_compiled_products_are_given_no_bias() -> None:
    layer, x = Linear(INPUTS, OUTPUTS), torch.randn(64, INPUTS)
    compiler = Compiler()
    compiler.enabled = True
    compiler.call("a layer", layer.forward, x)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        compiler.call("a layer", layer.forward, x)
    called = {event.key for event in found.key_averages()}
    assert "aten::bmm" in called and "aten::addmm" not in called


def test_a_weights_gradient_lies_as_the_weight() -> None:
    """A gradient step then needs no copy of it, compiled or not."""
    layer, x = Linear(INPUTS, OUTPUTS), torch.randn(6, INPUTS)
    compiler = Compiler()
    for compiler.enabled in (False, True):
        (found,) = compiler.gradient("a layer", _total, [layer.weight], layer, x)[1]
        assert found is not None and found.stride() == layer.weight.stride()
        torch.testing.assert_close(found, x.sum(0).expand(OUTPUTS, -1))


def _total(layer: Linear, x: Tensor) -> Tensor:
    return layer(x).sum()


def test_precision_under_autocast() -> None:
    """A layer's outputs are bfloat16 as torch's are, but where they are to stay in float32."""
    x, exact = torch.randn(6, INPUTS), Float32Linear(INPUTS, OUTPUTS)
    layer = Linear(INPUTS, OUTPUTS)
    expected = F.linear(x, exact.weight, exact.bias)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = F.linear(x, layer.weight, layer.bias)
        for found in (layer(x), compiled(layer, x)):
            assert found.dtype == torch.bfloat16
            torch.testing.assert_close(found, rounded, rtol=0.02, atol=0.02)
        for found in (exact(x), compiled(exact, x)):
            torch.testing.assert_close(found, expected)
        assert exact(x.bfloat16()).dtype == torch.float32
