"""CUDA graphs of functions against the functions."""

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.capture import Captured, tensors_of
from lit_mbrl.objectives import Plan

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def test_the_tensors_of_an_input() -> None:
    first, second, third, fourth = (torch.full((2,), float(i)) for i in range(4))
    rows = TensorDict({"a": third, "next": {"b": fourth}}, batch_size=[2])
    found = tensors_of((Plan(first, second), 3, (None, rows)))
    assert [float(tensor[0]) for tensor in found] == [0, 1, 2, 3]


@needs_gpu
def test_each_call_has_its_own_inputs_noise_and_memory() -> None:
    """As many random numbers are drawn as without, and what was returned stays as it is."""
    state = torch.zeros(3, device="cuda")

    def function(x: Tensor, rows: TensorDict, factor: float) -> Plan:
        state.add_(x)
        return Plan(state + rows["next", "y"], factor * torch.rand_like(x))

    def inputs(i: int) -> tuple[Tensor, TensorDict, float]:
        y = torch.full((3,), 10.0 * i)
        rows = TensorDict({"next": {"y": y}}, batch_size=[3], device="cuda")
        return torch.full((3,), 1.0 + i, device="cuda"), rows, 2.0

    expected = []
    torch.manual_seed(0)
    for i in range(5):
        expected.append(function(*inputs(i)))
    after = torch.rand(3, device="cuda")
    state.zero_()
    torch.manual_seed(0)
    captured = Captured("it", function)
    found = [captured(*inputs(i)) for i in range(5)]
    assert all(isinstance(plan, Plan) for plan in found)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(torch.rand(3, device="cuda"), after, rtol=0, atol=0)


@needs_gpu
def test_python_runs_no_more_once_it_is_captured() -> None:
    calls = []

    def function(x: Tensor) -> Tensor:
        calls.append(x)
        return x + 1

    captured = Captured("it", function)
    for i in range(5):
        assert captured(torch.tensor([float(i)], device="cuda")).item() == i + 1
    assert len(calls) == 2


@needs_gpu
def test_a_function_that_waits_runs_without(capsys: pytest.CaptureFixture[str]) -> None:
    """And leaves the random generator to those who draw outside of captures."""
    captured = Captured("the wait", lambda x: (torch.rand_like(x), x * float(x.sum()))[1])
    for i in range(4):
        x = torch.full((2,), float(i), device="cuda")
        torch.testing.assert_close(captured(x), x * 2 * i)
        assert 0 <= float(torch.rand((), device="cuda")) <= 1
    assert capsys.readouterr().err.count("the wait could not be captured and runs without: ") == 1
