"""Measures at which horizon the gradients of MAAC and MPDP through imagined steps break down.

    python benchmarks/path_gradient_norms.py --tasks Pendulum-v1 HalfCheetah-v5

As `gradient_norms.py` does for SVG(infinity): a policy that was not trained acts in the task, the
model is fitted to what it has met, and the gradient of the policy is taken from batches of these
states. MPDP's plans never stop early here and their model error costs nothing; its gradient is that
of all policies together, its first one's is beside it.
"""

import lit_mbrl  # isort: skip  # noqa: F401  # before torch, see lit_mbrl.mkl

import argparse
import logging
import math
from collections.abc import Iterator
from itertools import combinations

import torch
from gradient_norms import replay_of
from torch import Tensor

from lit_mbrl.algorithms import MAAC, MPDP
from lit_mbrl.envs import make_gym_env, termination_path
from lit_mbrl.held_out import held_out


def main() -> None:
    """Print a table for each task and algorithm."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=["Pendulum-v1", "HalfCheetah-v5"])
    parser.add_argument("--horizons", nargs="+", type=int, default=[1, 2, 5, 10, 25, 50])
    parser.add_argument("--transitions", type=int, default=8000, help="to collect and to fit to")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--rows", type=int, default=256, help="of a batch")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("torchrl").setLevel(logging.WARNING)  # it reports every storage
    for task in given.tasks:
        print(task, "| of | steps | median norm | largest norm | cosine |", sep="\n")
        print("|---" * 5 + "|")
        for name, steps, gradients in measured(task, given):
            norms = gradients.norm(dim=1)
            cosines = [torch.cosine_similarity(a, b, 0) for a, b in combinations(gradients, 2)]
            row = f"{norms.median():.2g} | {norms.max():.2g} | {torch.stack(cosines).mean():.2f}"
            print(f"| {name} | {steps} | {row} |", flush=True)


def measured(task: str, given: argparse.Namespace) -> Iterator[tuple[str, int, Tensor]]:
    """Whose gradients, at which horizon, [batches, parameters]."""
    torch.manual_seed(given.seed)
    env = make_gym_env(task)
    sizes = [int(space.shape[0]) for space in (env.observation_space, env.action_space)]
    termination, layers = termination_path(task, None), (200, 200)
    decay = (2.5e-5, 5e-5, 1e-4)
    maac = MAAC(
        *sizes,
        termination,
        target_entropy=None,
        initial_temperature=0.2,
        dynamics_hidden_sizes=layers,
        dynamics_weight_decay=decay,
    )
    maac.configure_optimizers()
    real = held_out(maac, task, None, given.transitions, given.seed)
    replay = replay_of(real, 1)
    maac.fit_dynamics(replay.transitions())
    for steps in given.horizons:
        maac.horizon = steps
        batches = [replay.sample_windows(given.rows)["observation"] for _ in range(given.batches)]
        actor = list(maac.actor.parameters())
        yield "MAAC", steps, torch.stack([gradient(maac, rows, actor) for rows in batches])
        mpdp = MPDP(
            *sizes,
            termination,
            max_horizon=steps + 1,
            threshold=math.inf,
            beta=0.0,
            dynamics_hidden_sizes=layers,
            dynamics_weight_decay=decay,
        )
        mpdp.dynamics, mpdp.critic = maac.dynamics, maac.critic
        every = [*mpdp.actor.parameters(), *mpdp.later_actors.parameters()]
        found = torch.stack([gradient(mpdp, rows, every) for rows in batches])
        yield "MPDP", steps, found
        yield "MPDP's pi_0", steps, found[:, : sum(p.numel() for p in mpdp.actor.parameters())]


def gradient(agent: MAAC | MPDP, observation: Tensor, parameters: list[Tensor]) -> Tensor:
    """Of the actor's loss at observations [B, S], as a vector, before it is clipped."""
    found = torch.autograd.grad(agent.actor_loss(observation)[0], parameters)
    return torch.cat([part.flatten() for part in found])


if __name__ == "__main__":
    main()
