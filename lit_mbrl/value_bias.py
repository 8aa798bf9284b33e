"""The bias of the critics' values against Monte Carlo returns (paper 000, Figure 5).

Paper 000 normalises the bias Q(s_t, tau_t) - Q^pi(s_t, tau_t) of a plan's value by the absolute
mean of Q^pi, and reports its mean and standard deviation. Q^pi is the discounted return of a real
episode of the behaviour policy in which the plan was taken, from there on.

In the soft form the critics' values hold the entropy too: each plan after the first adds
-alpha log pi^k, discounted as its first step (Eq. 51). `soft` compares them with returns that hold
it, `plain` with rewards alone; the difference is what the entropy is worth.

A time limit is no termination, and values go on behind it, so that returns are cut there. A state
counts only if no cut can come before its discount has fallen to `TAIL`: with gamma 0.99, 459 steps
before the time limit and the end of collection. Whether its episode terminates earlier plays no
part: nearer to a cut, those with a whole return would be those that fail soon. Nothing is
bootstrapped, which would take the critics' word for what they are judged by.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.data.windows import windows_from
from lit_mbrl.held_out import own_randomness, segments

TAIL = 0.01


class Bias(NamedTuple):
    """Mean and standard deviation of a normalised bias."""

    mean: float
    std: float


@torch.no_grad()
def value_bias(
    agent: Any, real: TensorDict, seed: int, time_limit: int | None
) -> dict[str, Bias] | None:
    """The biases `plain` and `soft` of an algorithm's smallest critic, by which its policy learns.

    Args:
        agent: The algorithm, with `critic`, `actor`, `temperature`, `gamma` and `plan_length`.
        real: Transitions [C, T] of its behaviour policy, see `held_out.collect`.
        seed: Of the actions by which entropies are estimated.
        time_limit: Steps after which an episode is cut, if it is.

    Returns:
        None if every state is too near to a cut.
    """
    k, gamma, following = agent.plan_length, agent.gamma, real["next"]
    # Both mean over actions; another sample than the one taken is as good an estimate.
    with own_randomness(seed, agent.device):
        log_prob = agent.actor.sample(real["observation"].to(agent.device))[1].cpu()
    bonus = -float(agent.temperature()) * log_prob
    returns = monte_carlo_returns(real["reward"], following["done"], gamma)
    entropies = entropy_returns(bonus, following["done"], gamma, k)
    rows, starts = before_any_cut(following["done"], horizon(gamma, k), time_limit)
    if not len(rows):
        return None
    windows = windows_from(segments(real, rows, starts, k)).to(agent.device)
    value = agent.critic(windows["observation"], windows["action"]).amin(0).cpu()
    plain = returns[rows, starts]
    soft = plain + entropies[rows, starts]
    return {"plain": normalised_bias(value, plain), "soft": normalised_bias(value, soft)}


def normalised_bias(value: Tensor, returns: Tensor) -> Bias:
    """Mean and standard deviation of (Q - Q^pi) / |E[Q^pi]| for values and returns [N]."""
    bias = (value - returns) / returns.mean().abs()
    return Bias(float(bias.mean()), float(bias.std(correction=0)))


def monte_carlo_returns(reward: Tensor, done: Tensor, gamma: float) -> Tensor:
    """sum_l gamma^l r_{t+l} up to the end of the episode, in double precision.

    Args:
        reward: [C, T].
        done: Whether the episode ended with the transition, in whatever way [C, T].
        gamma: Discount of one step.

    Returns:
        [C, T].
    """
    returns = reward.double()
    for step in range(reward.shape[1] - 2, -1, -1):
        returns[:, step] += gamma * ~done[:, step] * returns[:, step + 1]
    return returns


def entropy_returns(bonus: Tensor, done: Tensor, gamma: float, plan_length: int) -> Tensor:
    """What the entropy of the later plans adds to the return of a plan (paper 000, Eq. 51).

    sum_{j >= 1} gamma^{jk} sum_{m < k} bonus_{t+jk+m}, up to the end of the episode.

    Args:
        bonus: -alpha log pi of each step [C, T].
        done: Whether the episode ended with the transition, in whatever way [C, T].
        gamma: Discount of one step.
        plan_length: k.

    Returns:
        [C, T], in double precision.
    """
    k, steps = plan_length, bonus.shape[1]
    ongoing = ~F.pad(done, (0, 2 * k), value=True)
    ahead = ongoing.unfold(1, k, 1).cumprod(-1)  # whether the episode has steps t + 1 .. t + k
    taken = torch.cat([torch.ones_like(ahead[..., :1]), ahead[..., :-1]], -1)
    plan = (F.pad(bonus.double(), (0, 2 * k)).unfold(1, k, 1) * taken).sum(-1)
    later = torch.zeros_like(plan)
    for step in range(steps - 1, -1, -1):
        following = plan[:, step + k] + later[:, step + k]
        later[:, step] = gamma**k * ahead[:, step, -1] * following
    return later[:, :steps]


def horizon(gamma: float, plan_length: int) -> float:
    """Steps until the discount is at most `TAIL`, and no fewer than a plan's; may be infinite."""
    if gamma == 1:
        return math.inf
    return max(plan_length, math.ceil(math.log(TAIL) / math.log(gamma)) if gamma > 0 else 1)


def before_any_cut(done: Tensor, steps: float, time_limit: int | None) -> tuple[Tensor, Tensor]:
    """Rows and columns [N] of the states that no cut can follow within so many steps.

    Args:
        done: Whether the episode ended with the transition, in whatever way [C, T].
        steps: A state's own and those after it.
        time_limit: Steps after which an episode is cut, if it is.
    """
    copies, length = done.shape
    times = torch.arange(length).expand(copies, -1)
    begins = F.pad(done[:, :-1], (1, 0), value=True)
    ages = times - torch.where(begins, times, 0).cummax(1).values
    left = length - times
    if time_limit is not None:
        left = torch.minimum(left, time_limit - ages)
    rows, starts = (left >= steps).nonzero(as_tuple=True)
    return rows, starts
