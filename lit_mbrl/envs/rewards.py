"""Known rewards: what a step of a task pays, read off the observations and the action.

A model predicts the reward besides the next observation; an algorithm may be given one of these
pure functions of (observation [..., S], action [..., A] in [-1, 1], next observation [..., S]) in
its place, which return rewards [...]. Those with a task's name repeat it in its default
configuration (gymnasium 1.4, `gymnasium/envs/mujoco/*_v5.py`), as far as its observation tells.
"""

from collections.abc import Callable

from torch import Tensor

from lit_mbrl.envs import termination
from lit_mbrl.errors import import_function

Reward = Callable[[Tensor, Tensor, Tensor], Tensor]


def reads(observation_size: int, action_size: int) -> Callable[[Reward], Reward]:
    """Mark a reward by the sizes (S, A) that it is for, so that no other task is given it."""

    def mark(reward: Reward) -> Reward:
        reward.sizes = (observation_size, action_size)  # type: ignore[attr-defined]
        return reward

    return mark


@reads(4, 1)
def inverted_pendulum(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """1 for a step that does not end the episode, else 0 (InvertedPendulum-v5)."""
    ended = termination.inverted_pendulum(observation, action, next_observation)
    return (~ended).to(next_observation.dtype)


@reads(4, 1)
def balanced_pendulum(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """How near the pole's tip is to its place above the middle of the rail (InvertedPendulum-v5).

    Not what the task pays, but what PETS plans by in its cart-pole: exp(-d^2 / 0.6^2) - 0.01 |a|^2
    with the tip's distance d in metres; the pole is 0.6 long here too. Plans of a second all pay
    the same in the task's own reward until the cart is about to meet the rail's end.
    """
    position, angle = next_observation[..., 0], next_observation[..., 1]
    sideways, down = position + 0.6 * angle.sin(), 0.6 * (1 - angle.cos())
    distance = sideways.square() + down.square()
    return (-distance / 0.6**2).exp() - 0.01 * action.square().sum(-1)


@reads(4, 1)
def centred_pendulum(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """How far the pole is from falling, and the cart from the rail's end (InvertedPendulum-v5).

    Not what the task pays, which has no derivative, but what SVG(infinity) differentiates:
    1 - (angle / 0.2 rad)^2 - (position / 1 m)^2. Above the middle of the rail it is 1, where the
    pole has fallen there 0, and 0 for a pole that stands at the rail's end.
    """
    position, angle = next_observation[..., 0], next_observation[..., 1]
    return 1 - (angle / 0.2).square() - position.square()


@reads(17, 6)
def halfcheetah(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """Forward velocity less 0.1 |a|^2 (HalfCheetah-v5).

    The task pays the mean velocity of the step, (x' - x) / dt, and its observation hides x: here
    it is the mean of the velocities before and after.
    """
    velocity = (observation[..., 8] + next_observation[..., 8]) / 2
    return velocity - 0.1 * action.square().sum(-1)


def resolve(path: str | None) -> Reward | None:
    """Import a reward function, if there is to be one.

    Args:
        path: Dotted path of the function; None leaves the reward to the model.

    Raises:
        ConfigurationError: If nothing can be imported from there, or it cannot be called.
    """
    if path is None:
        return None
    allowed = f"null, or the dotted path of a function, such as '{__name__}.halfcheetah'"
    reward: Reward = import_function("model.reward", path, allowed)
    return reward
