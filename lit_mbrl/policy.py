"""The trained policy on its own: from observations to actions in the task's units."""

from copy import deepcopy
from typing import Any

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram


class Policy(nn.Module):
    """The deterministic policy: observations [B, S] to actions [B, A], both in the task's units.

    Args:
        agent: The algorithm; its actor, which acts in [-1, 1], is copied to the CPU.
        task: As `make_gym_env` makes it, around the task whose range [-1, 1] stands for.

    Attributes:
        observations: The task's observation space.
        actions: The task's own action space.
    """

    middle: Tensor
    half_range: Tensor

    def __init__(self, agent: Any, task: Any):
        super().__init__()
        self.actor = deepcopy(agent.actor).cpu().requires_grad_(False)
        self.observations: Box = task.observation_space
        self.actions: Box = task.env.action_space
        low, high = torch.from_numpy(self.actions.low), torch.from_numpy(self.actions.high)
        self.register_buffer("middle", ((high + low) / 2).float())
        self.register_buffer("half_range", ((high - low) / 2).float())

    def forward(self, observation: Tensor) -> Tensor:
        """Actions [B, A] for observations [B, S], float32."""
        return self.middle + self.half_range * self.actor.mode(observation)

    def program(self) -> ExportedProgram:
        """The policy as a program that needs none of our code, for batches of any size."""
        example = torch.zeros(2, *self.observations.shape)  # one row would be taken as fixed
        return torch.export.export(self, (example,), dynamic_shapes=({0: Dim("batch")},))
