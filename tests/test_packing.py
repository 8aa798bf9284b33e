"""Windows as rows of one tensor come back as they were."""

import torch
from tensordict import TensorDict

from lit_mbrl.data.packing import layout_of, pack, unpack


def test_rows_come_back_in_their_shapes_and_kinds() -> None:
    windows = TensorDict(
        {
            "observation": torch.randn(7, 4),
            "action": torch.randn(7, 3, 2),
            "mask": torch.rand(7, 3) > 0.5,
            "reward": torch.randn(7, 3),
            "next": {"observation": torch.randn(7, 4), "terminated": torch.rand(7) > 0.5},
        },
        batch_size=[7],
    )
    layout = layout_of(windows)
    packed = pack(windows, layout)
    assert packed.shape == (7, 4 + 6 + 3 + 3 + 4 + 1)
    drawn = torch.tensor([6, 0, 0, 3])
    found, expected = unpack(packed[drawn], layout), windows[drawn]
    assert found.batch_size == expected.batch_size
    for name in expected.keys(include_nested=True, leaves_only=True):
        assert found[name].dtype == expected[name].dtype
        assert torch.equal(found[name], expected[name])


def test_double_precision_is_kept() -> None:
    rows = TensorDict({"mask": torch.tensor([True]), "x": torch.tensor([0.1]).double()}, [1])
    layout = layout_of(rows)
    assert unpack(pack(rows, layout), layout)["x"].item() == torch.tensor(0.1).item()
