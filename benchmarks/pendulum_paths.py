"""Asks how long paths must be for SVG(infinity) to keep InvertedPendulum-v5's cart on its rail.

    python benchmarks/pendulum_paths.py

For paths of k steps: the linear policy with the highest return by `centred_pendulum` on the task
linearised at rest, and the slowest mode of the closed loop with it. A mode whose eigenvalue is
above 1 takes the cart away for good.
"""

import lit_mbrl  # isort: skip  # noqa: F401  # before torch, see lit_mbrl.mkl

import argparse

import numpy as np
import torch
from gymnasium import Env
from scipy.optimize import minimize

from lit_mbrl.envs import make_gym_env
from lit_mbrl.envs.rewards import centred_pendulum

BEGIN = (0.1, 0.05, 0.2, 0.3)
"""Deviation of a path's first state: position, angle and their velocities."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 20, 50, 100])
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--policy_std", type=float, default=0.3, help="deviation of the actions")
    given = parser.parse_args()
    env = make_gym_env("InvertedPendulum-v5")
    state, action = linearised(env)
    print("| steps | gains | largest eigenvalue | time constant |\n|---|---|---|---|")
    for steps in given.steps:
        gains = best_gains(state, action, steps, given.gamma, given.policy_std)
        largest = np.abs(np.linalg.eigvals(state + action @ gains)).max()
        seconds = f"{-env.unwrapped.dt / np.log(largest):.1f} s" if largest < 1 else "-"
        shown = ", ".join(f"{gain:.1f}" for gain in gains.ravel())
        print(f"| {steps} | {shown} | {largest:.3f} | {seconds} |")


def linearised(env: Env, step: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    """ds'/ds [4, 4] and ds'/da [4, 1] at rest, by central differences."""
    env.reset(seed=0)

    def following(given: np.ndarray) -> np.ndarray:
        env.unwrapped.set_state(given[:2], given[2:4])
        return np.asarray(env.step(given[4:])[0])

    columns = [(following(shift) - following(-shift)) / (2 * step) for shift in step * np.eye(5)]
    derivative = np.stack(columns, 1)
    return derivative[:, :4], derivative[:, 4:]


def best_gains(
    state: np.ndarray, action: np.ndarray, steps: int, gamma: float, std: float
) -> np.ndarray:
    """K [1, 4] of the policy a = K s with the highest expected return of a path."""
    rest, still = torch.zeros(4), torch.zeros(1)
    curvature = torch.autograd.functional.hessian(lambda s: centred_pendulum(s, still, s), rest)
    cost = -0.5 * curvature.numpy()

    def negative_return(gains: np.ndarray) -> float:
        closed = state + action @ gains.reshape(1, 4)
        moments, total = np.diag(np.square(BEGIN)), 0.0
        for t in range(steps):
            moments = closed @ moments @ closed.T + std**2 * action @ action.T
            total += gamma**t * np.trace(cost @ moments)
        return min(total, 1e12)

    options = {"maxiter": 6000, "maxfev": 6000, "xatol": 1e-5, "fatol": 1e-8}
    starts = ([0.5, 3.0, 0.7, 0.8], [5.0, 40.0, 6.0, 4.0])
    found = [
        minimize(negative_return, start, method="Nelder-Mead", options=options) for start in starts
    ]
    return np.asarray(min(found, key=lambda result: result.fun).x).reshape(1, 4)


if __name__ == "__main__":
    main()
