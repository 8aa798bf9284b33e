"""The tasks that are known by name, and the making of any gymnasium task."""

import difflib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box, Space
from gymnasium.wrappers import RescaleAction

from lit_mbrl.envs.termination import LEARNED, resolve
from lit_mbrl.errors import ConfigurationError, cause, one_line, require


@dataclass(frozen=True)
class Task:
    """A gymnasium task as the papers use it.

    Attributes:
        env_id: Its name in gymnasium's registry.
        termination: Dotted path of its termination function.
        kwargs: Arguments of its constructor that differ from gymnasium's defaults.
    """

    env_id: str
    termination: str
    kwargs: dict[str, Any] = field(default_factory=dict)


# Ant and Humanoid are observed without contact forces, Humanoid also without inertias, centre of
# mass velocities and actuator forces: 27 and 45 numbers, the `TruncatedObs` tasks of MBPO
# (arXiv 1906.08253; jannerm/mbpo@ac694ff). Contacts cost nothing either: no function of what is
# observed could predict it, and in gym's -v3 tasks, on which MPPVE was run, MuJoCo 2 reported no
# contact forces, so that they cost nothing there.
#
# Up to -v4, as in the versions that the papers ran, the step that falls is paid for being alive
# too, and from -v5 on it is not; the friction of one of Walker2d's feet differs besides. Of
# Humanoid-v4 no 45 numbers can be had, and Swimmer and HalfCheetah have not changed.
TASKS = {
    task.env_id: task
    for task in (
        Task("InvertedPendulum-v5", "lit_mbrl.envs.termination.inverted_pendulum"),
        Task("InvertedPendulum-v4", "lit_mbrl.envs.termination.inverted_pendulum"),
        Task("Hopper-v5", "lit_mbrl.envs.termination.hopper"),
        Task("Hopper-v4", "lit_mbrl.envs.termination.hopper"),
        Task("Swimmer-v5", "lit_mbrl.envs.termination.never"),
        Task("HalfCheetah-v5", "lit_mbrl.envs.termination.never"),
        Task("Walker2d-v5", "lit_mbrl.envs.termination.walker2d"),
        Task("Walker2d-v4", "lit_mbrl.envs.termination.walker2d"),
        Task(
            "Ant-v5",
            "lit_mbrl.envs.termination.ant",
            {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0},
        ),
        Task("Ant-v4", "lit_mbrl.envs.termination.ant"),
        Task(
            "Humanoid-v5",
            "lit_mbrl.envs.termination.humanoid",
            {
                "include_cinert_in_observation": False,
                "include_cvel_in_observation": False,
                "include_qfrc_actuator_in_observation": False,
                "include_cfrc_ext_in_observation": False,
                "contact_cost_weight": 0.0,
            },
        ),
    )
}


def make_gym_env(env_id: str, env_kwargs: dict[str, Any] | None = None) -> gymnasium.Env:
    """Make a task whose observations are vectors [S] and whose actions are vectors in [-1, 1]^A.

    Args:
        env_id: A name in gymnasium's registry, or 'module:Name-v0' to import the module that
            registers it first.
        env_kwargs: Arguments of the task's constructor; they override those of `TASKS`.

    Raises:
        ConfigurationError: If there is no such task, it cannot be made with these arguments, its
            observations are not vectors, or its actions are not vectors between finite bounds.
    """
    defaults = TASKS[env_id].kwargs if env_id in TASKS else {}
    try:
        with _without_deprecations():
            env = gymnasium.make(env_id, **{**defaults, **(env_kwargs or {})})
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigurationError(
            f"data.env_id: {env_id!r} was given ({one_line(error)}); "
            f"allowed: a task in gymnasium's registry or 'module:Name-v0'{_suggestion(env_id)}"
        ) from error
    except Exception as error:  # of any kind: it is the task's own, or its module's
        if env_kwargs:
            raise ConfigurationError(
                f"data.env_kwargs: {env_kwargs!r} was given ({cause(error)}); "
                f"allowed: arguments of the constructor of {env_id}"
            ) from error
        raise ConfigurationError(
            f"data.env_id: {env_id!r} was given ({cause(error)}); allowed: a task that can be made"
        ) from error
    _require_vector(env_id, "observation", env.observation_space)
    actions = _require_vector(env_id, "action", env.action_space)
    bounded = f"a task whose actions lie between finite bounds, not {one_line(actions)}"
    require(actions.is_bounded(), "data.env_id", env_id, bounded)
    # Bounds of the space's own precision: gymnasium warns when it has to round them.
    one = np.ones(actions.shape, actions.dtype)
    return RescaleAction(env, -one, one)


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Where MuJoCo does not tell of deprecations in a model's file, whosever it is.

    It would for each copy of HalfCheetah, whose file is gymnasium's, and in MUJOCO_LOG.TXT.
    """

    def tell(text: str) -> None:
        if "deprecated" not in text:
            print("MuJoCo:", text, file=sys.stderr, flush=True)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(tell)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def termination_path(env_id: str, termination: str | None) -> str:
    """The user's choice of a termination function, the table's, or `learned`.

    Args:
        env_id: The task, as given to `make_gym_env`.
        termination: The user's choice, if there is one: a dotted path, `never` or `learned`.

    Raises:
        ConfigurationError: If the choice cannot be resolved.
    """
    if termination is None:
        return TASKS[env_id].termination if env_id in TASKS else LEARNED
    if termination != LEARNED:
        resolve(termination)
    return termination


def _require_vector(env_id: str, name: str, space: Space[Any]) -> Box:
    """The space itself, if it is a one-dimensional `Box` of floating-point numbers."""
    if isinstance(space, Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
        return space
    raise ConfigurationError(
        f"data.env_id: {env_id!r} was given; allowed: a task whose {name}s are vectors of "
        f"continuous numbers, not {one_line(space)}"
    )


def _suggestion(env_id: str) -> str:
    """The registered tasks of a similar name."""
    name = env_id.rpartition(":")[2]
    others = [registered for registered in gymnasium.registry if registered != name]
    close = difflib.get_close_matches(name, others)
    return f", such as {', '.join(close)}" if close else ""
