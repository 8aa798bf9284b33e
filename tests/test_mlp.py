"""Batched perceptrons against one at a time."""

import pytest
import torch
import torch.nn.functional as F

from lit_mbrl.networks import EnsembleMLP


@pytest.mark.parametrize("outputs", [1, 2, 10, 31, 32, 50])
def test_outputs_and_gradients_are_those_of_single_networks(outputs: int) -> None:
    torch.manual_seed(outputs)
    networks = EnsembleMLP([5, 8, outputs], 3, torch.relu)
    x = torch.randn(3, 40, 5)
    weight = torch.randn(3, 40, outputs)
    parameters = list(networks.parameters())
    found = networks(x, torch.tensor([2, 0, 1]))
    gradient = torch.autograd.grad((found * weight).sum(), parameters)
    naive = []
    for row, e in enumerate([2, 0, 1]):
        hidden = F.linear(x[row], networks.weights[0][e].T, networks.biases[0][e]).relu()
        naive.append(F.linear(hidden, networks.weights[1][e].T, networks.biases[1][e]))
    expected = torch.stack(naive)
    assert found.shape == expected.shape and torch.allclose(found, expected, atol=1e-6)
    theirs = torch.autograd.grad((expected * weight).sum(), parameters)
    assert all(torch.allclose(x, y, atol=1e-4) for x, y in zip(gradient, theirs, strict=True))
