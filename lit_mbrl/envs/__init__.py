"""Tasks: the making of an environment and the functions that belong to it."""

from lit_mbrl.envs.rewards import Reward
from lit_mbrl.envs.rewards import resolve as resolve_reward
from lit_mbrl.envs.simulator import Resumable
from lit_mbrl.envs.tasks import TASKS, Task, make_gym_env, termination_path
from lit_mbrl.envs.termination import LEARNED
from lit_mbrl.envs.termination import resolve as resolve_termination

__all__ = [
    "LEARNED",
    "TASKS",
    "Resumable",
    "Reward",
    "Task",
    "make_gym_env",
    "resolve_reward",
    "resolve_termination",
    "termination_path",
]
