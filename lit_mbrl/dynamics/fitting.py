"""Maximum-likelihood fitting of the ensemble, with early stopping on a holdout (MBPO)."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.compilation import Compiler
from lit_mbrl.dynamics.ensemble import Dynamics
from lit_mbrl.dynamics.termination import fit_termination, termination_error
from lit_mbrl.networks.mlp import lies_transposed

PATIENT_UPDATES = 16
"""Updates of an epoch in the published runs' first fit, to four fifths of 5,000 transitions.

With fewer transitions an epoch is so few updates that `patience` of them may pass before the error
begins to fall: fits to 1,000 of HalfCheetah-v5 stopped after 7 to 11 epochs and had learned
nothing.
"""

HOLDOUT = 0.2
"""Share of the data that is held out, by random split."""

GROUP = {"cpu": 1, "cuda": 8}
"""Updates at a time: those that are one CUDA graph on a GPU, to hand out one takes a while."""

UPDATE = "the dynamics' update"


class FitReport(NamedTuple):
    """What a fit came to: epochs run and the elites' mean error on the holdout.

    `termination_error` is the share of the holdout's rows whose termination the elites mistake;
    None where it is not learned.
    """

    epochs: int
    holdout_mse: float
    holdout_nll: float
    termination_error: float | None


def fit(
    dynamics: Dynamics,
    optimizer: Optimizer,
    transitions: TensorDict,
    batch_size: int = 256,
    patience: int = 5,
    holdout_max: int = 5000,
    min_improvement: float = 0.01,
) -> FitReport:
    """Fit every network to its own bootstrap of the data, from where the last fit left it.

    Each network keeps the weights of its best epoch on the holdout; the fit ends after `patience`
    epochs, and `PATIENT_UPDATES` times as many updates, in which no network's holdout error fell by
    more than `min_improvement` of its best. (The updates are ours, for small data alone.)
    There is no cap on the epochs. Then the networks with the lowest error become the elites. A
    learned termination is fitted at the end, see `fit_termination`.

    Args:
        dynamics: The ensemble.
        optimizer: Over its parameters; its state is carried from fit to fit.
        transitions: [N] with `observation`, `action`, `reward`, `("next", "observation")` and
            `("next", "terminated")`.
        batch_size: Rows a network sees in one update.
        patience: Epochs without improvement before stopping. 5 in the published MPPVE; the
            published MBPO's and LOOP's loop runs one more, 6 here.
        holdout_max: At most this many rows are held out.
        min_improvement: Relative fall of the holdout error that counts.
    """
    observation, following = transitions["observation"], transitions["next", "observation"]
    inputs = torch.cat([observation, transitions["action"]], -1)
    targets = torch.cat([following - observation, transitions["reward"].unsqueeze(-1)], -1)
    rows, device = len(inputs), inputs.device
    networks = dynamics.ensemble.networks
    shuffled = torch.randperm(rows, device=device)
    holdout_rows = max(1, min(int(rows * HOLDOUT), holdout_max))
    holdout, train = shuffled[:holdout_rows], shuffled[holdout_rows:]
    dynamics.set_input_scale(inputs[train])

    # Membership of the bootstraps is drawn once a fit; only their order changes with the epochs.
    # A single network has no others to differ from, and gets every row.
    drawn = torch.randint(len(train), (networks, len(train)), device=device)
    bootstrap = train[drawn] if networks > 1 else train.unsqueeze(0)
    best_error = torch.full((networks,), torch.inf, device=device)
    best = [parameter.detach().clone() for parameter in dynamics.ensemble.parameters()]
    epochs = stale = 0
    group = GROUP.get(device.type, GROUP["cpu"])
    per_epoch = math.ceil(len(train) / batch_size)
    while stale < patience or stale * per_epoch < patience * PATIENT_UPDATES:
        order = torch.rand(bootstrap.shape, device=device).argsort(1)
        for batches in grouped(bootstrap.gather(1, order), batch_size, group):
            # The last batch of an epoch is as short as the data have it: no function for each size.
            compiler = dynamics.compiler if batches.shape[2] == batch_size else Compiler()
            drawn_rows = inputs[batches], targets[batches]
            compiler.capture(UPDATE, update, compiler, dynamics, optimizer, *drawn_rows)
        error = holdout_error(dynamics, inputs[holdout], targets[holdout])[0]
        improved = error < best_error * (1 - min_improvement)
        best_error = torch.where(improved, error, best_error)
        for snapshot, parameter in zip(best, dynamics.ensemble.parameters(), strict=True):
            torch.where(improved.view(-1, 1, 1), parameter.detach(), snapshot, out=snapshot)
        epochs += 1
        stale = 0 if improved.any() else stale + 1

    for snapshot, parameter in zip(best, dynamics.ensemble.parameters(), strict=True):
        parameter.data.copy_(snapshot)
    elites = best_error.argsort()[: len(dynamics.elites)]
    dynamics.elites.copy_(elites)
    mse, nll = holdout_error(dynamics, inputs[holdout], targets[holdout])
    mistaken = None
    if dynamics.termination is None:
        ended = transitions["next", "terminated"]
        fit_termination(dynamics, following[train], ended[train])
        error = termination_error(dynamics, following[holdout], ended[holdout])
        mistaken = float(error[elites].mean())
    return FitReport(epochs, float(mse[elites].mean()), float(nll[elites].mean()), mistaken)


def grouped(rows: Tensor, batch_size: int, group: int) -> Iterator[Tensor]:
    """Batches of an epoch's rows [E, N], in order, `group` of them at a time: [G, E, B].

    What is left for no whole group comes one by one, and the last batch is as short as that is.
    """
    whole = rows.shape[1] // (group * batch_size) * group * batch_size
    for part in rows[:, :whole].unflatten(1, (-1, group, batch_size)).unbind(1):
        yield part.transpose(0, 1).contiguous()
    if whole < rows.shape[1]:
        for part in rows[:, whole:].split(batch_size, 1):
            yield part.unsqueeze(0)


def update(
    compiler: Compiler, dynamics: Dynamics, optimizer: Optimizer, inputs: Tensor, targets: Tensor
) -> None:
    """Steps of every network on batches of its own, [G, E, B, ...]; see `loss` for the rest."""
    for batch in zip(inputs, targets, strict=True):
        compiler.step(UPDATE, loss, optimizer, dynamics, *batch)


def loss(dynamics: Dynamics, inputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood (paper 000, Eq. 10), mean over batch and dimensions, sum over nets.

    The factor 1/2 and the constant of the Gaussian are left out and the clamp's bounds are drawn
    together, as in the published MBPO. Weight decay is the optimizer's.

    Args:
        dynamics: The ensemble.
        inputs: (s, a), [E, B, S + A], a slice for each network.
        targets: (s' - s, r), [E, B, S + 1].
    """
    mean, log_var = dynamics(inputs)
    if lies_transposed(log_var):
        mean, log_var, targets = mean.mT, log_var.mT, targets.mT
    nll = ((mean - targets).square() * (-log_var).exp() + log_var).mean((1, 2)).sum()
    return nll + 0.01 * (dynamics.max_log_var.sum() - dynamics.min_log_var.sum())


@torch.no_grad()
def holdout_error(dynamics: Dynamics, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error and negative log-likelihood [E] of each network on inputs [N, S + A]."""
    mean, log_var = dynamics(inputs.expand(dynamics.ensemble.networks, -1, -1))
    square = (mean - targets).square()
    return square.mean((1, 2)), (square * (-log_var).exp() + log_var).mean((1, 2))
