"""The objective of SARSA: the value of the policy that took the actions."""

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.objectives.soft import Values
from lit_mbrl.objectives.values import plan_value_target


@torch.no_grad()
def sarsa_target(windows: TensorDict, target_critic: Values, gamma: float) -> Tensor:
    """r + gamma (1 - terminated) min_i Q_i^-(s', a') [B], with the action that was taken at s'.

    Args:
        windows: Of two steps [B], with `path` [B, 3, S], see `windows_from`.
        target_critic: Its values are of plans of one step.
        gamma: Discount of one step.
    """
    terminated = ~windows["mask"][:, 1]  # there is a second step unless the first was the last
    next_value = target_critic(windows["path"][:, 1], windows["action"][:, 1:]).amin(0)
    return plan_value_target(windows["reward"][:, :1], terminated, next_value, gamma)
