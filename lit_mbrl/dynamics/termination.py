"""Fitting of a learned termination: the heads that tell which states end an episode.

Most terminations test one or two numbers of the state against a threshold. A perceptron that is
fitted to them finds thresholds in all the others too, and is right on 0.986 of held-out rows of
Walker2d-v5; with a penalty on the sum of the first layer's absolute weights (the lasso), which
leaves out what is not needed, on 0.994 (docs/architecture.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from lit_mbrl.dynamics.ensemble import Dynamics
from lit_mbrl.precision import float32

UPDATES = 1000
"""Of a fit. They take about a second of a core; the next fit goes on from this one's weights."""

BATCH_SIZE = 256
LEARNING_RATE = 0.01
"""Of Adam; it falls to zero by a cosine, so that the last weights need no holdout to be chosen."""

SPARSITY = 0.006
"""Weight of the sum of the first layer's absolute weights in the loss."""


def fit_termination(dynamics: Dynamics, following: Tensor, ended: Tensor) -> None:
    """Fit every network's head to the same rows, each in minibatches of its own.

    They are small and need more epochs than the ensemble, so they are fitted apart from it: by the
    cross-entropy, with terminations weighted by the square root of their rarity.

    Args:
        dynamics: An ensemble that learns the termination, with the scale of its inputs set.
        following: s' [N, S].
        ended: Whether s' ended the episode, [N].
    """
    ended = ended.float()
    terminations = ended.sum().clamp(min=1)
    rarity = ((len(ended) - terminations) / terminations).clamp(min=1)
    # With the whole of it heads are right less often; with none of it they overlook what is rare.
    weight = dynamics.termination_weight.copy_(rarity.sqrt())
    head = dynamics.termination_head
    optimizer = Adam(head.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = CosineAnnealingLR(optimizer, UPDATES)
    for _ in range(UPDATES):
        batch = torch.randint(len(ended), (head.networks, BATCH_SIZE), device=ended.device)
        optimizer.zero_grad()
        with float32(following):
            logit = dynamics.termination_logit(following[batch])
            entropy = F.binary_cross_entropy_with_logits(logit, ended[batch], pos_weight=weight)
            # A sum over networks, as the penalty is.
            (head.networks * entropy + SPARSITY * head.weights[0].abs().sum()).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def termination_error(dynamics: Dynamics, following: Tensor, ended: Tensor) -> Tensor:
    """Share of the rows s' [N, S] whose termination [N] each network [E] mistakes."""
    logit = dynamics.termination_logit(following.expand(dynamics.ensemble.networks, -1, -1))
    return ((logit > dynamics.termination_weight.log()) != ended.bool()).float().mean(1)
