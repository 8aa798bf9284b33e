"""Our Adam is torch's."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adam, Optimizer

from lit_mbrl.adam import FusedAdam, plain


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in ((3, 40, 7), (5,), (60, 33), (2, 2))]


def groups(weights: list[nn.Parameter]) -> list[dict[str, object]]:
    return [{"params": weights[:2], "weight_decay": 0.1}, {"params": weights[2:], "lr": 0.05}]


def step(optimizer: Optimizer, weights: list[nn.Parameter], number: int, **given: Any) -> None:
    """With other gradients each time; the last weight has none in the first three."""
    draw = torch.Generator().manual_seed(number)
    for weight in weights if number > 3 else weights[:-1]:
        weight.grad = torch.randn(weight.shape, generator=draw).to(weight.device)
    optimizer.step(**given)


def test_it_steps_as_torchs_does_and_goes_on_from_its_states() -> None:
    ours, theirs = parameters(), parameters()
    optimizer: Optimizer = FusedAdam(groups(ours), lr=0.01)
    reference: Optimizer = Adam(groups(theirs), lr=0.01, fused=True)
    for number in range(1, 13):
        step(optimizer, ours, number)
        step(reference, theirs, number)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), number
        if number == 7:  # each goes on from what the other has kept
            kept = optimizer.state_dict(), reference.state_dict()
            optimizer, reference = FusedAdam(groups(ours)), Adam(groups(theirs), fused=True)
            optimizer.load_state_dict(kept[1])
            reference.load_state_dict(kept[0])


@pytest.mark.parametrize("device", ["cpu"] + ["cuda"] * torch.cuda.is_available())
def test_what_is_compiled_for_a_gpu_steps_so_too(device: str) -> None:
    """From states of the fused kernel, which it leaves as the kernel would."""
    ours, theirs = ([nn.Parameter(p.detach().to(device)) for p in parameters()] for _ in range(2))
    optimizer, reference = FusedAdam(groups(ours), lr=0.01), FusedAdam(groups(theirs), lr=0.01)
    compiled = torch.compile(plain, fullgraph=True, dynamic=False)
    for number in range(1, 13):
        step(optimizer, ours, number, **({} if number in (5, 9) else {"arithmetic": compiled}))
        step(reference, theirs, number)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        states, expected = (o.state_dict()["state"] for o in (optimizer, reference))
        torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)
