"""The task that is trained on: watched, and able to go on in the middle of an episode."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, SupportsFloat

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium import Env, Wrapper
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.wrappers import (
    DtypeObservation,
    OrderEnforcing,
    PassiveEnvChecker,
    RescaleAction,
    TimeLimit,
)

from lit_mbrl.errors import DivergenceError, TaskError, one_line

INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION

DERIVED = (
    "xpos",
    "xipos",
    "geom_xpos",
    "site_xpos",
    "subtree_com",
    "cfrc_ext",
    "cinert",
    "cvel",
    "qfrc_actuator",
)
"""Fields that a task's reward or observation reads before the simulator computes them anew."""

STATELESS = (DtypeObservation, OrderEnforcing, PassiveEnvChecker, RescaleAction, TimeLimit)
"""Wrappers that keep nothing from step to step; of TimeLimit, the count of steps is saved."""


class Resumable(Wrapper[Any, Any, Any, Any]):
    """A task whose state can be taken in mid-episode and put back, bit for bit.

    gymnasium's own MuJoCo tasks can: the simulator's integration state and what is derived from it,
    the count of the time limit and the task's random generator are saved. So can a task of your own
    if it has `simulator_state() -> dict` and `set_simulator_state(dict)`, of tensors, numbers and
    strings. Any other task begins a new episode.

    Args:
        env: The task, observed as the policy observes it.
    """

    def __init__(self, env: Env[Any, Any]):
        super().__init__(env)
        self._observation: np.ndarray | None = None  # None between episodes
        self._pending: dict[str, Any] | None = None
        self._broken = False

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """gymnasium's.

        Raises:
            DivergenceError: If the action is not finite.
            TaskError: If the task raises an error or returns what is not a finite observation of
                the declared shape and a finite reward.
        """
        if not np.all(np.isfinite(action)):
            raise DivergenceError(f"the policy's action is {one_line(action)}")
        with self._blame("step"):
            observation, reward, terminated, truncated, info = self.env.step(action)
            self._check(observation)
            if not math.isfinite(reward):
                raise TaskError(f"the task returned a reward of {reward}")
        self._observation = None if terminated or truncated else np.array(observation)
        return observation, reward, terminated, truncated, info

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """gymnasium's, but the first one after `resume` goes on where `snapshot` was taken.

        Raises:
            TaskError: As `step`.
        """
        with self._blame("reset"):
            if self._pending is None:
                observation, info = self.env.reset(seed=seed, options=options)
            else:
                state, self._pending = self._pending, None
                observation, info = self._restore(state)
            self._check(observation)
        self._observation = np.array(observation)
        return observation, info

    def snapshot(self) -> dict[str, Any] | None:
        """The state as tensors, numbers and strings; None if this task's cannot be had."""
        task: Any = self.unwrapped
        if self._broken or not self._can_be_saved():
            return None
        state: dict[str, Any] = {
            "generator": _as_text(task.np_random.bit_generator.state),
            "observation": None,
        }
        if self._observation is not None:
            state["observation"] = torch.from_numpy(self._observation.copy())
            state["elapsed_steps"] = [limit._elapsed_steps for limit in self._time_limits()]
            state["task"] = (
                _mujoco_state(task)
                if isinstance(task, MujocoEnv)
                else _plain(task.simulator_state())
            )
        return state

    def resume(self, state: dict[str, Any]) -> None:
        """Let the next `reset` go on from what `snapshot` returned."""
        self._pending = state

    def _restore(self, state: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        task: Any = self.unwrapped
        task.np_random.bit_generator.state = _from_text(state["generator"])
        if state["observation"] is None:  # it was between two episodes
            return self.env.reset()
        # A reset before, because gymnasium's wrappers ask for one; the generator after it.
        self.env.reset()
        task.np_random.bit_generator.state = _from_text(state["generator"])
        for limit, steps in zip(self._time_limits(), state["elapsed_steps"], strict=True):
            limit._elapsed_steps = steps
        if isinstance(task, MujocoEnv):
            _set_mujoco_state(task, state["task"])
        else:
            task.set_simulator_state(state["task"])
        return state["observation"].numpy().copy(), {}

    @contextmanager
    def _blame(self, method: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._broken = True
            if isinstance(error, TaskError):
                raise
            raise TaskError(f"the task's {method} failed: {one_line(repr(error))}") from error

    def _check(self, observation: Any) -> None:
        shape = self.observation_space.shape
        if np.shape(observation) != shape:
            raise TaskError(
                f"the task returned an observation of shape {np.shape(observation)}, not {shape}"
            )
        if not np.isfinite(observation).all():
            raise TaskError(f"the task returned the observation {one_line(observation)}")

    def _can_be_saved(self) -> bool:
        task = self.unwrapped
        known = isinstance(task, MujocoEnv) and type(task).__module__.startswith(
            "gymnasium.envs.mujoco."
        )
        able = hasattr(task, "simulator_state") and hasattr(task, "set_simulator_state")
        return (known or able) and all(isinstance(w, STATELESS) for w in self._wrappers())

    def _wrappers(self) -> list[Wrapper[Any, Any, Any, Any]]:
        found, env = [], self.env
        while isinstance(env, gymnasium.Wrapper):
            found.append(env)
            env = env.env
        return found

    def _time_limits(self) -> list[Any]:
        return [wrapper for wrapper in self._wrappers() if isinstance(wrapper, TimeLimit)]


def _mujoco_state(task: MujocoEnv) -> dict[str, torch.Tensor]:
    integration = np.empty(mujoco.mj_stateSize(task.model, INTEGRATION))
    mujoco.mj_getState(task.model, task.data, integration, INTEGRATION)
    derived = {name: torch.from_numpy(getattr(task.data, name).copy()) for name in DERIVED}
    return {"integration": torch.from_numpy(integration), **derived}


def _set_mujoco_state(task: MujocoEnv, state: dict[str, torch.Tensor]) -> None:
    mujoco.mj_setState(task.model, task.data, state["integration"].numpy(), INTEGRATION)
    for name in DERIVED:
        getattr(task.data, name)[:] = state[name].numpy()


def _as_text(value: Any) -> Any:
    """Integers of 128 bits, which generators have, do not fit where checkpoints keep integers."""
    if isinstance(value, dict):
        return {key: _as_text(inner) for key, inner in value.items()}
    return str(value) if isinstance(value, int) else value


def _from_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _from_text(inner) for key, inner in value.items()}
    return int(value) if value.isdigit() else value


def _plain(value: Any) -> Any:
    """A task's own state as what a checkpoint may hold; numpy's arrays become tensors."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str | torch.Tensor):
        return value
    raise TaskError(
        f"simulator_state() holds a {type(value).__name__}; "
        "allowed: dictionaries and lists of numbers, strings, arrays and tensors"
    )
