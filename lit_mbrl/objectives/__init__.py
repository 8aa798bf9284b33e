"""Targets and losses as pure functions: tensors in, tensors out."""

from lit_mbrl.objectives.expansion import (
    Expansion,
    candidate_targets,
    inverse_variance_mean,
    soft_expansion,
    td_k_targets,
)
from lit_mbrl.objectives.model_error import one_vs_rest
from lit_mbrl.objectives.path import Path, unroll
from lit_mbrl.objectives.sarsa import sarsa_target
from lit_mbrl.objectives.soft import Plan, soft_actor_loss, soft_target
from lit_mbrl.objectives.value_gradients import Partials, backward_recursion, jacobian
from lit_mbrl.objectives.values import discounted_return, plan_value_target, squared_error

__all__ = [
    "Expansion",
    "Partials",
    "Path",
    "Plan",
    "backward_recursion",
    "candidate_targets",
    "discounted_return",
    "inverse_variance_mean",
    "jacobian",
    "one_vs_rest",
    "plan_value_target",
    "sarsa_target",
    "soft_actor_loss",
    "soft_expansion",
    "soft_target",
    "squared_error",
    "td_k_targets",
    "unroll",
]
