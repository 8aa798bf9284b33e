"""Standard normal noise."""

import pytest
import torch

from lit_mbrl.networks.noise import standard_normal

ROWS = torch.zeros(3, 2000, 12)
COLUMNS = torch.zeros(3, 12, 2000).mT


@pytest.mark.parametrize(
    "like",
    [ROWS, COLUMNS, ROWS[..., :5], COLUMNS[..., 5:], ROWS[0, 0]],
    ids=["rows", "columns", "narrowed rows", "narrowed columns", "vector"],
)
def test_it_is_normal_and_of_the_tensors_shape(like: torch.Tensor) -> None:
    """Independent too: no number is there twice, however the tensor lies in memory."""
    noise = standard_normal(like)
    assert noise.shape == like.shape and noise.dtype == like.dtype
    assert len(noise.unique()) > 0.99 * noise.numel()
    if noise.numel() > 1000:
        assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
        columns = torch.stack([noise[..., 0].flatten(), noise[..., 1].flatten()])
        assert abs(torch.corrcoef(columns)[0, 1]) < 0.1


def test_it_is_drawn_anew() -> None:
    assert not torch.equal(standard_normal(ROWS), standard_normal(ROWS))
