"""What planners are tried on: a linear-quadratic problem, and PETS on a pendulum."""

from typing import Any

import torch
from torch import Tensor

from lit_mbrl.algorithms import PETS
from lit_mbrl.planning import CEM, Problem

# x' = F x + G a costs x Q x + R a^2 a step, and x Q x at the end.
F, G, Q, R = torch.tensor([[1, 0.1], [0, 1]]), torch.tensor([[0.0], [0.5]]), torch.eye(2), 0.1
STATES = torch.tensor([[0.5, -0.2], [0.3, 0.3], [-0.6, 0.1]])


def negative_cost(state: Tensor, plans: Tensor) -> Tensor:
    x = state.unsqueeze(1).expand(-1, plans.shape[1], -1)
    cost = torch.zeros(plans.shape[:2])
    for action in plans.unbind(2):
        cost = cost + ((x @ Q) * x).sum(-1) + R * action.square().sum(-1)
        x = x @ F.T + action @ G.T
    return -cost - ((x @ Q) * x).sum(-1)


def resting(state: Tensor, plans: int, horizon: int) -> Tensor:
    """The plans of an actor that does nothing."""
    return torch.zeros(len(state), plans, horizon, 1)


LINEAR_QUADRATIC = Problem(negative_cost, 1, resting)

PENDULUM = "lit_mbrl.envs.termination.inverted_pendulum"
START = torch.tensor([[0.0, 0.05, 0.0, 0.0], [0.1, -0.15, 0.0, 0.0]])


def pets(**changed: Any) -> PETS:
    sizes: dict[str, Any] = {"dynamics_hidden_sizes": [8], "dynamics_weight_decay": [0.0, 0.0]}
    given = {"planner": CEM(4, 20, 5, 2), "particles": 5, **sizes, **changed}
    return PETS(4, 1, PENDULUM, **given)
