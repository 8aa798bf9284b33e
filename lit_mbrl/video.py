"""Films of a task, made without a display."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, SupportsFloat

import imageio.v2 as imageio
from gymnasium import Env, Wrapper
from gymnasium.envs.mujoco import MujocoEnv

from lit_mbrl.envs import Resumable, make_gym_env
from lit_mbrl.errors import ConfigurationError, cause, writing


class Film(Wrapper[Any, Any, Any, Any]):
    """A task that writes a frame to a file at its reset and after every step.

    Args:
        env: The task, made with `render_mode="rgb_array"`.
        path: An .mp4; it is whole once the task is closed.
    """

    def __init__(self, env: Env[Any, Any], path: Path):
        super().__init__(env)
        self.frames = 0
        self._path = path
        self._writer: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """gymnasium's.

        Raises:
            ConfigurationError: If nothing can be rendered or written here.
        """
        found = self.env.reset(seed=seed, options=options)
        self._add_frame()
        return found

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """gymnasium's.

        Raises:
            ConfigurationError: As `reset`.
        """
        found = self.env.step(action)
        self._add_frame()
        return found

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.env.close()

    def _add_frame(self) -> None:
        try:
            if self.frames == 0 and isinstance(self.unwrapped, MujocoEnv):
                _require_renderer()
            frame = self.env.render()
            if frame is None:
                raise ValueError("the task draws no images")
        except Exception as error:  # of any kind: it depends on what is missing
            raise ConfigurationError(
                f"video: {str(self._path)!r} was given ({error}); allowed: where the task can be "
                "drawn: MuJoCo's without a display need EGL, on Debian the package libegl1"
            ) from error
        with writing("video", self._path, "a file that can be written"):
            if self._writer is None:
                self._path.touch()  # the writer would tell in many lines if it cannot
                fps = self.env.metadata.get("render_fps", 30)
                # Sides need only be even; the writer's default is to stretch them to 16s.
                self._writer = imageio.get_writer(self._path, fps=fps, macro_block_size=2)
            self._writer.append_data(frame)
        self.frames += 1


def filmed(env_id: str, env_kwargs: dict[str, Any] | None, path: Path) -> Film:
    """Make a task that is filmed.

    Args:
        env_id: The task, as for `make_gym_env`.
        env_kwargs: Arguments of its constructor besides `render_mode`.
        path: As for `Film`.

    Raises:
        ConfigurationError: If it cannot be made so that it is drawn.
    """
    try:
        env = make_gym_env(env_id, {**(env_kwargs or {}), "render_mode": "rgb_array"})
    except ConfigurationError as error:
        reason = cause(error.__cause__ or error)
        raise ConfigurationError(
            f"video: {str(path)!r} was given ({reason}); allowed: for a task that can be made with "
            "render_mode='rgb_array'"
        ) from error
    return Film(Resumable(env), path)


def _require_renderer() -> None:
    """Try the renderer that gymnasium will use, which would complain in many lines."""
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")  # gymnasium tries for a display first
    if backend := os.environ.get("MUJOCO_GL"):
        import_module(f"mujoco.{backend}").GLContext(64, 64).free()
