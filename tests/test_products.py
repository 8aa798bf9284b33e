"""Products dealt to threads against torch's."""

from collections.abc import Iterator

import pytest
import torch

from lit_mbrl.compilation import Compiler
from lit_mbrl.networks import EnsembleMLP
from lit_mbrl.products import LARGE, bmm

ROWS, INPUTS, OUTPUTS = 130, 180, 190
assert ROWS * INPUTS * OUTPUTS > LARGE


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("batch", [1, 2, 5, 7])
@pytest.mark.parametrize("rows", [3, ROWS])
def test_a_product_is_torchs(threads: int, batch: int, rows: int) -> None:
    """However the factors and the product lie in memory."""
    draw = torch.Generator().manual_seed(batch)
    a = torch.randn(batch, rows, INPUTS, generator=draw)
    b = torch.randn(batch, INPUTS, OUTPUTS, generator=draw)
    expected = torch.einsum("emk,ekn->emn", a.double(), b.double()).float()
    for left in (a, a.mT.contiguous().mT):
        for right in (b, b.mT.contiguous().mT):
            for out in (torch.full_like(expected, torch.nan), torch.empty(expected.mT.shape).mT):
                assert bmm(left, right, out=out) is out
                torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_which_products_are_split(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The large ones of an odd number of networks, with and without the compiler; others not."""
    sizes: list[int] = []
    product = torch.bmm

    def counted(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        sizes.append(len(a))
        return product(a, b, out=out)

    def seen(networks: int, rows: int, compiled: bool) -> list[int]:
        ensemble = EnsembleMLP([INPUTS, OUTPUTS], networks, torch.relu_)
        compiler = Compiler()
        compiler.enabled = compiled
        x = torch.randn(networks, rows, INPUTS)
        with monkeypatch.context() as patched:
            compiler.call("it", ensemble, x)
            sizes.clear()
            patched.setattr(torch, "bmm", counted)
            y = compiler.call("it", ensemble, x)
        torch.testing.assert_close(y, product(x, ensemble.weights[0]) + ensemble.biases[0])
        return list(sizes)

    for compiled in (False, True):
        assert seen(5, ROWS, compiled) == [4, 1]
        assert seen(4, ROWS, compiled) == [4]
        assert seen(5, 3, compiled) == [5]
