"""Value expansion: targets with steps of a model between the reward and the value.

A path has transitions t = 0..H, of which the first is real and the others are imagined from its
next state with the present policy: (s_t, a_t, r_t, s_{t+1}). A termination, real or predicted, ends
the sum, and nothing is bootstrapped behind it.
"""

from typing import NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.objectives.path import Path
from lit_mbrl.objectives.soft import Values
from lit_mbrl.objectives.values import plan_value_target


class Expansion(NamedTuple):
    """The states and actions of many paths with their targets.

    Attributes:
        observation: s_t [N, S].
        action: a_t [N, 1, A], as plans of one step.
        target: Of Q(s_t, a_t) [N].
    """

    observation: Tensor
    action: Tensor
    target: Tensor


@torch.no_grad()
def soft_expansion(
    transitions: TensorDict, path: Path, target_critic: Values, alpha: Tensor, gamma: float
) -> Expansion:
    """All that MVE's error is taken over (arXiv 1803.00101, Eq. 5), with the targets of SAC.

    Args:
        transitions: Real ones [B].
        path: From their next states on, see `unroll` [B, H + 1].
        target_critic: Its smallest value ends the paths.
        alpha: Weight of the entropy.
        gamma: Discount of one step.

    Returns:
        N rows, the B real ones and as many of the H B imagined as no termination comes before.
    """
    end_value = target_critic(path.observation[:, -1], path.action[:, -1:]).amin(0)
    targets = td_k_targets(
        torch.cat([transitions["reward"], path.reward], 1),
        -alpha * path.log_prob[:, :-1],
        path.ended,
        end_value - alpha * path.log_prob[:, -1],
        gamma,
    )
    observation = torch.cat([transitions["observation"].unsqueeze(1), path.observation[:, :-1]], 1)
    action = torch.cat([transitions["action"], path.action[:, :-1]], 1)
    exists = torch.cat([torch.ones_like(path.ended[:, :1]), ~path.ended[:, :-1]], 1)
    return Expansion(observation[exists], action[exists].unsqueeze(1), targets[exists])


def td_k_targets(
    reward: Tensor, entropy: Tensor, ended: Tensor, end_value: Tensor, gamma: float
) -> Tensor:
    """Targets of Q(s_t, a_t) at every state of the path, which all end in the same value.

    y_t = sum_{m=t}^{H} gamma^{m-t} r_m + gamma^{H+1-t} V(s_{H+1}), in the soft form with the
    entropies of the steps after t (MVE's TD-k trick, arXiv 1803.00101, Eq. 5).

    Args:
        reward: r_t [..., H + 1].
        entropy: -alpha log pi(a_t|s_t) of the imagined steps t = 1..H, [..., H].
        ended: Whether the path has ended with step t or before it [..., H + 1].
        end_value: V(s_{H+1}) [...], with its entropy term in the soft form.
        gamma: Discount of one step.

    Returns:
        [..., H + 1]; behind a termination they mean nothing.
    """
    assert reward.shape == ended.shape and entropy.shape[-1] == reward.shape[-1] - 1
    targets: list[Tensor] = []
    value = end_value
    for t in range(reward.shape[-1] - 1, -1, -1):
        target = plan_value_target(reward[..., t : t + 1], ended[..., t], value, gamma)
        targets.insert(0, target)
        if t > 0:
            value = entropy[..., t - 1] + target
    return torch.stack(targets, -1)


def candidate_targets(reward: Tensor, ended: Tensor, value: Tensor, gamma: float) -> Tensor:
    """STEVE's candidates for Q(s_0, a_0), which end in the values after each step of the path.

    T_h = sum_{t=0}^{h} gamma^t r_t + gamma^{h+1} V(s_{h+1}) (arXiv 1807.01675, section 3.1).

    Args:
        reward: r_t [..., H + 1], zero behind a termination.
        ended: Whether the path has ended with step t or before it [..., H + 1].
        value: V(s_{t+1}) [..., H + 1].
        gamma: Discount of one step.

    Returns:
        T_0..T_H, [..., H + 1].
    """
    assert reward.shape == ended.shape == value.shape
    targets = [
        plan_value_target(reward[..., : h + 1], ended[..., h], value[..., h], gamma)
        for h in range(reward.shape[-1])
    ]
    return torch.stack(targets, -1)


def inverse_variance_mean(candidates: Tensor) -> tuple[Tensor, Tensor]:
    """STEVE's target: the candidates' means, weighted by their inverse variances.

    Args:
        candidates: T_h [N, B, H + 1] of N combinations of the ensembles' members.

    Returns:
        The target [B], and the weights [B, H + 1], which sum to one.
    """
    variance, mean = torch.var_mean(candidates, 0, correction=0)
    # Where all agree, as at a real termination, the weights are equal.
    weight = 1 / (variance + 1e-8)
    weight = weight / weight.sum(-1, keepdim=True)
    return (weight * mean).sum(-1), weight
