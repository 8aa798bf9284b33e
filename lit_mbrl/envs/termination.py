"""Termination functions: what ends an episode of a task, read off the observation.

A dynamics model predicts observations; whether an imagined episode has ended is computed by one
of these pure functions of (observation [..., S], action [..., A], next observation [..., S]),
which returns booleans [...]. Each repeats what the simulator of the same name does in its default
configuration (gymnasium 1.4, `gymnasium/envs/mujoco/*_v5.py`), which need not be what its
documentation says: the simulators exclude or include the ends of their healthy ranges, and test
for finite numbers, each in its own way. Lengths are in metres, angles in radians.

A comparison with NaN is false, so "not healthy" covers NaN where a healthy range is tested.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lit_mbrl.errors import import_function

Termination = Callable[[Tensor, Tensor, Tensor], Tensor]

LEARNED = "learned"
"""In place of a function's path: the dynamics learn what ends an episode."""


def never(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """No state ends the episode (HalfCheetah-v5, Swimmer-v5)."""
    return torch.zeros_like(next_observation[..., 0], dtype=torch.bool)


def inverted_pendulum(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """The pole leans by more than 0.2, or a number is not finite (InvertedPendulum-v5).

    Healthy: -0.2 <= angle <= 0.2, ends included. The observation is the whole state.
    """
    angle = next_observation[..., 1]
    return (angle.abs() > 0.2) | ~next_observation.isfinite().all(-1)


def hopper(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """The torso is too low or leans, or the state has left its bounds (Hopper-v5).

    Healthy: 0.7 < height < inf, -0.2 < angle < 0.2, and every number but the height in
    (-100, 100), all ends excluded; so anything non-finite is unhealthy.

    The observation clips velocities to [-10, 10] and thereby hides one that has left (-100, 100).
    """
    height, angle = next_observation[..., 0], next_observation[..., 1]
    bounded = (next_observation[..., 1:].abs() < 100.0).all(-1)
    return ~((height > 0.7) & (height < math.inf) & (angle.abs() < 0.2) & bounded)


def walker2d(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """The torso is too low, too high or leans (Walker2d-v5).

    Healthy: 0.8 < height < 2.0, -1.0 < angle < 1.0, ends excluded. Only the height and the angle
    are tested: other non-finite numbers do not end the episode.
    """
    height, angle = next_observation[..., 0], next_observation[..., 1]
    return ~((height > 0.8) & (height < 2.0) & (angle.abs() < 1.0))


def ant(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """The torso is too low or too high, or a number is not finite (Ant-v5).

    Healthy: 0.2 <= height <= 1.0, ends included. The observation hides the torso's x and y, which
    the simulator also expects to be finite.
    """
    height = next_observation[..., 0]
    return ~((height >= 0.2) & (height <= 1.0) & next_observation.isfinite().all(-1))


def humanoid(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """The torso is too low or too high (Humanoid-v5).

    Healthy: 1.0 < height < 2.0, ends excluded. Only the height is tested: other non-finite
    numbers do not end the episode.
    """
    height = next_observation[..., 0]
    return ~((height > 1.0) & (height < 2.0))


def resolve(path: str) -> Termination:
    """Import a termination function.

    Args:
        path: Dotted path of the function, or the word `never`.

    Raises:
        ConfigurationError: If nothing can be imported from there, or it cannot be called.
    """
    if path == "never":
        return never
    allowed = (
        f"'{LEARNED}', 'never' or the dotted path of a function, such as "
        f"'{hopper.__module__}.hopper'"
    )
    termination: Termination = import_function("data.termination", path, allowed)
    return termination
