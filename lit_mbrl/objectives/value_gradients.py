"""Value gradients along real paths (SVG, arXiv 1510.09142; paper 004, appendix).

A subscript is a derivative: V_s = dV/ds [..., S], f_a = df/da [..., S, A].
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Partials(NamedTuple):
    """Derivatives of reward, model and policy at each of k steps, with the noise that was inferred.

    Attributes:
        reward_s: r_s [..., k, S].
        reward_a: r_a [..., k, A].
        model_s: f_s [..., k, S, S].
        model_a: f_a [..., k, S, A].
        policy_s: pi_s [..., k, A, S].
    """

    reward_s: Tensor
    reward_a: Tensor
    model_s: Tensor
    model_a: Tensor
    policy_s: Tensor


def jacobian(outputs: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """d outputs / d inputs of rows that are independent of each other.

    Args:
        outputs: [N, O], row n a function of row n of each input.
        inputs: [N, I] each.

    Returns:
        [N, O, I] for each input.
    """
    rows, size = outputs.shape
    each = torch.eye(size, device=outputs.device).unsqueeze(1).expand(size, rows, size)
    columns = torch.autograd.grad(outputs, inputs, each, is_grads_batched=True)
    return tuple(column.transpose(0, 1) for column in columns)


def backward_recursion(
    partials: Partials, weight: Tensor, end_value_s: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """V_s at every step of a path, and how the value there rises with its action.

    With v_a pi_s and v_a pi_theta multiplied out these are the lecture's V_s and V_theta:
      v_a     = w (r_a + gamma V'_s' f_a)
      V_s     = w (r_s + gamma V'_s' f_s) + v_a pi_s
      V_theta = v_a pi_theta + w gamma V'_theta, the sum of v_a pi_theta over the steps, each
                discounted by gamma and weighted by w once for every step before it

    Args:
        partials: Of the k steps.
        weight: w [..., k]: 1 for an action of the policy itself; for another's the factor by which
            it changes the importance weight of the path (as w multiplies what follows an action,
            and no more, each estimate is per decision); and 0 behind the end of the episode.
        end_value_s: V_s at the end of the path [..., S]; zero for a finite horizon.
        gamma: Discount of one step.

    Returns:
        v_a [..., k, A], discounted and weighted as in V_theta of the first step, and V_s
        [..., k, S].
    """
    value_s, actions, states = end_value_s, [], []
    for t in range(weight.shape[-1] - 1, -1, -1):
        step = (part.select(weight.ndim - 1, t) for part in partials)
        reward_s, reward_a, model_s, model_a, policy_s = step
        w, following = weight[..., t, None], gamma * value_s.unsqueeze(-2)
        value_a = w * (reward_a + (following @ model_a).squeeze(-2))
        value_s = w * (reward_s + (following @ model_s).squeeze(-2))
        value_s = value_s + (value_a.unsqueeze(-2) @ policy_s).squeeze(-2)
        actions.append(value_a)
        states.append(value_s)
    before = torch.cat([torch.ones_like(weight[..., :1]), gamma * weight[..., :-1]], -1).cumprod(-1)
    return torch.stack(actions[::-1], -2) * before.unsqueeze(-1), torch.stack(states[::-1], -2)
