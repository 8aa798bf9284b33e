"""What a run has learned, read back from a checkpoint: the algorithm and its task."""

import inspect
import pickle
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from lit_mbrl.algorithms import Agent
from lit_mbrl.checkpoints import is_sound, read
from lit_mbrl.errors import ConfigurationError, one_line, require
from lit_mbrl.planning import Planner


class Trained(NamedTuple):
    """An algorithm with its learned weights, on the CPU, and the task that it was trained on.

    Attributes:
        agent: The algorithm.
        env_id: The task, as `make_gym_env` takes it, with `env_kwargs`.
        env_kwargs: Arguments of its constructor.
        seed: Of the run.
        env_step: Environment steps that the run had taken.
    """

    agent: Agent
    env_id: str
    env_kwargs: dict[str, Any] | None
    seed: int
    env_step: int

    def __str__(self) -> str:
        return f"{type(self.agent).__name__} on {self.env_id}, environment step {self.env_step:,}"


def load(path: Path) -> Trained:
    """Read `best.ckpt` or `last.ckpt` of a run of `lit_mbrl.fit`; nothing is unpickled.

    Raises:
        ConfigurationError: If there is no such file, it is damaged, of another program, or of an
            algorithm that is not there or has changed since.
    """
    require(path.exists(), "checkpoint", str(path), "a file, such as checkpoints/RUN/best.ckpt")
    ours = "a checkpoint of lit_mbrl.fit that is whole"
    require(is_sound(path), "checkpoint", str(path), ours)
    try:
        saved: Any = read(path)
        require(isinstance(saved, dict), "checkpoint", str(path), ours)
        options, task = saved["hyper_parameters"], saved["datamodule_hyper_parameters"]
        class_path = options["_class_path"]
        progress = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        found = task["env_id"], task["env_kwargs"], task["seed"], progress["total"]["ready"]
        weights = saved["state_dict"]
    except (OSError, RuntimeError, TypeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigurationError(f"checkpoint: {str(path)!r} was given; allowed: {ours}") from error
    algorithm = _subclass(path, class_path, Agent)
    try:
        # The command line gives every algorithm what some need of the task.
        taken = inspect.signature(algorithm).parameters
        given = {name: _made(path, options[name]) for name in taken if name in options}
        agent = algorithm(**given)
        agent.load_state_dict(weights)
    except (TypeError, RuntimeError) as error:
        raise ConfigurationError(
            f"checkpoint: {str(path)!r} was given; allowed: a checkpoint of {class_path} as it is "
            f"now ({one_line(error)})"
        ) from error
    return Trained(agent.eval(), *found)


def _made(path: Path, option: Any) -> Any:
    """An option of an algorithm: a planner, if it is the description of one."""
    if isinstance(option, dict) and "class_path" in option:
        return _subclass(path, option["class_path"], Planner)(**option.get("init_args", {}))
    return option


def _subclass(path: Path, class_path: str, base: type) -> Any:
    """The class; whatever else a checkpoint may name is not called."""
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(import_module(module), name, None)
    except (ImportError, ValueError):
        found = None
    if isinstance(found, type) and issubclass(found, base):
        return found
    raise ConfigurationError(
        f"checkpoint: {str(path)!r} was given, of {class_path}; allowed: a checkpoint of an "
        "algorithm that can be imported from here"
    )
