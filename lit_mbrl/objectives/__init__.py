"""Targets and losses as pure functions: tensors in, tensors out."""

from lit_mbrl.objectives.sarsa import sarsa_target
from lit_mbrl.objectives.soft import Plan, soft_actor_loss, soft_critic_loss, soft_target
from lit_mbrl.objectives.values import discounted_return, plan_value_target, squared_error

__all__ = [
    "Plan",
    "discounted_return",
    "plan_value_target",
    "sarsa_target",
    "soft_actor_loss",
    "soft_critic_loss",
    "soft_target",
    "squared_error",
]
