"""A planner on top of a trained actor-critic: lookahead with its own model and values."""

from typing import Any

from torch import Tensor

from lit_mbrl.dynamics import Dynamics
from lit_mbrl.errors import require
from lit_mbrl.networks import Actor, Critic, DeterministicActor
from lit_mbrl.planning.behaviour import PlanningBehaviour
from lit_mbrl.planning.planner import Planner, Problem
from lit_mbrl.planning.scoring import ImaginedReturn, TerminalValue, policy_plans


def require_lookahead(option: str, agent: Any, planner: Planner) -> None:
    """Check that a planner can be put on top of an algorithm.

    Raises:
        ConfigurationError: If the algorithm lacks what is needed, or plans are shorter than those
            that its critics value.
    """
    parts = {
        "dynamics": (Dynamics,),
        "actor": (Actor, DeterministicActor),
        "critic": (Critic,),
        "gamma": (float,),
    }
    complete = all(isinstance(getattr(agent, name, None), kinds) for name, kinds in parts.items())
    name, given = type(agent).__name__, type(planner).__name__
    require(complete, option, given, f"none for {name}, which lacks a model, an actor or critics")
    length = agent.critic.plan_shape[0]
    allowed = f"a horizon of at least {length}, the actions that {name}'s values are of"
    require(planner.horizon >= length, option, f"{given} with horizon {planner.horizon}", allowed)


def lookahead(agent: Any, planner: Planner, copies: int) -> PlanningBehaviour:
    """The planner in place of the policy, to evaluate.

    A plan of H actions is worth what the model says of the first H - k, and from there the smallest
    critic's value of the last k: Q(s_{H-1}, a_{H-1}) where values are of single actions, Q(s, plan)
    in MPPVE. Each elite takes one particle through the horizon (TS-infinity). The actor's plans are
    what ARC's prior proposes.

    Args:
        agent: An algorithm with `dynamics`, `actor`, `critic` and `gamma`.
        planner: Its horizon is H.
        copies: Of the task.
    """
    tail, action_size = agent.critic.plan_shape

    def value(observation: Tensor, plan: Tensor) -> Tensor:
        smallest: Tensor = agent.critic(observation, plan).amin(0)
        return smallest

    def propose(state: Tensor, plans: int, horizon: int) -> Tensor:
        return policy_plans(agent.actor.mode, agent.dynamics.step, state, plans, horizon)

    score = ImaginedReturn(
        agent.dynamics,
        "ts_infinity",
        particles=len(agent.dynamics.elites),
        gamma=agent.gamma,
        terminal=TerminalValue(value, tail),
    )
    problem = Problem(score, action_size, propose)
    return PlanningBehaviour(lambda state, start: planner(problem, state, start), copies)
