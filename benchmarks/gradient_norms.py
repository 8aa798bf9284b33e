"""Measures at which horizon the gradients of SVG(infinity) break down.

    python benchmarks/gradient_norms.py --tasks InvertedPendulum-v5 HalfCheetah-v5

A policy that was not trained acts in the task, the model is fitted to what it has met, and the
gradient of the policy is taken along the real paths, for several numbers of steps. Given for each:
the norm of the gradient of a batch, its median and largest over the batches; and the mean cosine
between the gradients of two batches, which is 1 where they agree and 0 where they are noise.
"""

import lit_mbrl  # isort: skip  # noqa: F401  # before torch, see lit_mbrl.mkl

import argparse
import logging
from collections.abc import Iterator
from itertools import combinations

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.algorithms import SVGInfinity
from lit_mbrl.data import EnvironmentReplay
from lit_mbrl.envs import make_gym_env, termination_path
from lit_mbrl.held_out import held_out


def main() -> None:
    """Print a table for each task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=["InvertedPendulum-v5", "HalfCheetah-v5"])
    parser.add_argument("--horizons", nargs="+", type=int, default=[1, 2, 5, 10, 20, 50, 100])
    parser.add_argument("--transitions", type=int, default=8000, help="to collect and to fit to")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--windows", type=int, default=64, help="of a batch")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("torchrl").setLevel(logging.WARNING)  # it reports every storage
    for task in given.tasks:
        print(f"{task}\n| steps | median norm | largest norm | cosine |\n|---|---|---|---|")
        for steps, gradients in measured(task, given):
            norms = gradients.norm(dim=1)
            cosines = [torch.cosine_similarity(a, b, 0) for a, b in combinations(gradients, 2)]
            row = f"{norms.median():.2g} | {norms.max():.2g} | {torch.stack(cosines).mean():.2f}"
            print(f"| {steps} | {row} |", flush=True)


def measured(task: str, given: argparse.Namespace) -> Iterator[tuple[int, Tensor]]:
    """Horizons with their gradients of the actor [batches, parameters]."""
    torch.manual_seed(given.seed)
    env = make_gym_env(task)
    sizes = (int(space.shape[0]) for space in (env.observation_space, env.action_space))
    agent = SVGInfinity(*sizes, termination_path(task, None), dynamics_hidden_sizes=(200, 200))
    agent.configure_optimizers()
    real = held_out(agent, task, None, given.transitions, given.seed)
    with torch.no_grad():  # of the policy that is differentiated: every weight is 1
        real["log_prob"] = agent.log_prob(real["observation"], real["action"])
    agent.fit_dynamics(replay_of(real, 1).transitions())
    for steps in given.horizons:
        replay = replay_of(real, steps)
        agent.plan_length = steps
        batches = (replay.sample_windows(given.windows) for _ in range(given.batches))
        yield steps, torch.stack([gradient(agent, windows) for windows in batches])


def replay_of(real: TensorDict, steps: int) -> EnvironmentReplay:
    """Transitions [C, T] of C copies of a task, to be read as paths of some steps."""
    replay = EnvironmentReplay(real.numel(), steps, with_path=True)
    for row in real.flatten().split(1):
        ended, done = (row["next", key].unsqueeze(-1) for key in ("terminated", "done"))
        frame = row.clone()
        frame["next", "reward"] = row["reward"].unsqueeze(-1)
        frame["next", "terminated"], frame["next", "truncated"] = ended, done & ~ended
        replay.add(frame, row.get("log_prob", None))
    return replay


def gradient(agent: SVGInfinity, windows: TensorDict) -> Tensor:
    """Of the actor, as a vector, before it is clipped."""
    loss = agent.actor_loss(*agent.go_backwards(windows))
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(agent.actor.parameters()))]
    )


if __name__ == "__main__":
    main()
