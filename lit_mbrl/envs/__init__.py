"""Tasks: the making of an environment and the termination function that belongs to it."""

from lit_mbrl.envs.simulator import Resumable
from lit_mbrl.envs.tasks import TASKS, Task, make_gym_env, termination_path
from lit_mbrl.envs.termination import LEARNED
from lit_mbrl.envs.termination import resolve as resolve_termination

__all__ = [
    "LEARNED",
    "TASKS",
    "Resumable",
    "Task",
    "make_gym_env",
    "resolve_termination",
    "termination_path",
]
