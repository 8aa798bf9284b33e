"""Asks what it costs a model that InvertedPendulum-v5 does not pay the step that falls.

    python benchmarks/unpaid_falls.py

In -v4 it is paid 1, as every other step, in -v5 nothing; states are the same. MPPVE's ensemble is
fitted to the same transitions with the rewards of either: 5,000 of random actions, as a warm-up,
and 3,000 of a controller that balances; then twice more from where it is, as a run does. After each
fit: its epochs, the holdout's error, by which it stops and elites are chosen, and on 2,000 more
steps that are balanced the error of the elites' mean and the reward that they expect, which is 1.
"""

import lit_mbrl  # isort: skip  # noqa: F401  # before torch, see lit_mbrl.mkl

import argparse

import numpy as np
import torch
from tensordict import TensorDict

from lit_mbrl.dynamics import Dynamics, fit
from lit_mbrl.envs import TASKS, make_gym_env
from lit_mbrl.fit import prepare_process

PAID, UNPAID = "InvertedPendulum-v4", "InvertedPendulum-v5"
GAINS = np.array([0.3, 5.0, 0.4, 0.7])
"""Of a linear controller; with its noise it balances."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    given = parser.parse_args()
    prepare_process()
    print("| seed | task | fit | epochs | holdout MSE | angle's RMSE | velocity's RMSE | reward |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in given.seeds:
        data = torch.cat([steps(5000, seed, balances=False), steps(3000, seed, balances=True)])
        balanced = steps(2000, seed + 1000, balances=True)
        for env_id in PAID, UNPAID:
            paid = data.clone()
            if env_id == UNPAID:
                paid["reward"] *= ~paid["next", "terminated"]
            torch.manual_seed(seed)
            dynamics = Dynamics(4, 1, TASKS[env_id].termination)
            optimizer = dynamics.optimizer()
            for again in 1, 2, 3:
                report = fit(dynamics, optimizer, paid)
                observation, action = balanced["observation"], balanced["action"]
                expected, reward, _ = dynamics.expected_step(observation, action)
                error = (expected - balanced["next", "observation"]).square().mean(0).sqrt()
                numbers = [float(error[1]), float(error[3]), float(reward.mean())]
                shown = " | ".join(f"{number:.4f}" for number in numbers)
                fitted = f"{report.epochs} | {report.holdout_mse:.1e}"
                print(f"| {seed} | {env_id} | {again} | {fitted} | {shown} |", flush=True)


def steps(number: int, seed: int, balances: bool) -> TensorDict:
    """Transitions [N] of the task whose falls are paid."""
    env, draw = make_gym_env(PAID), np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    rows = []
    for _ in range(number):
        noise = draw.uniform(-1, 1, 1)
        action = GAINS @ observation + 0.3 * noise if balances else noise
        action = np.clip(action, -1, 1).astype(np.float32)
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, reward, following, terminated))
        observation = env.reset()[0] if terminated or truncated else following
    columns = [torch.as_tensor(np.stack(column)) for column in zip(*rows, strict=True)]
    observations, actions, rewards, followings, ends = columns
    return TensorDict(
        {
            "observation": observations.float(),
            "action": actions,
            "reward": rewards.float(),
            "next": {"observation": followings.float(), "terminated": ends},
        },
        batch_size=[number],
    )


if __name__ == "__main__":
    main()
