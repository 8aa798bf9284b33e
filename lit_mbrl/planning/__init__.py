"""Planning: trajectory optimisation over a learned model, and policies that act by it."""

from lit_mbrl.planning.arc import ARC
from lit_mbrl.planning.behaviour import PlanningBehaviour
from lit_mbrl.planning.cem import CEM
from lit_mbrl.planning.icem import ICEM
from lit_mbrl.planning.lookahead import lookahead, require_lookahead
from lit_mbrl.planning.mppi import MPPI
from lit_mbrl.planning.planner import (
    Planner,
    Problem,
    Proposal,
    Score,
    Solution,
    Start,
    require_no_policy,
)
from lit_mbrl.planning.random_shooting import RandomShooting
from lit_mbrl.planning.scoring import ImaginedReturn, Sampling, TerminalValue, policy_plans

__all__ = [
    "ARC",
    "CEM",
    "ICEM",
    "MPPI",
    "ImaginedReturn",
    "Planner",
    "PlanningBehaviour",
    "Problem",
    "Proposal",
    "RandomShooting",
    "Sampling",
    "Score",
    "Solution",
    "Start",
    "TerminalValue",
    "lookahead",
    "policy_plans",
    "require_lookahead",
    "require_no_policy",
]
