"""A planner on top of a trained actor-critic: lookahead with its own model and values."""

from typing import Any

from torch import Tensor

from lit_mbrl.dynamics import Dynamics
from lit_mbrl.errors import require
from lit_mbrl.networks import Actor, Critic, DeterministicActor, Value
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
        "gamma": (float, int),
    }
    complete = all(isinstance(getattr(agent, name, None), kinds) for name, kinds in parts.items())
    terminal = terminal_value(agent)
    name, given = type(agent).__name__, type(planner).__name__
    allowed = f"none for {name}, which lacks a model, an actor or values"
    require(complete and terminal is not None, option, given, allowed)
    assert terminal is not None
    allowed = f"a horizon of at least {terminal.tail}, the actions that {name}'s values are of"
    given = f"{given} with horizon {planner.horizon}"
    require(planner.horizon >= terminal.tail, option, given, allowed)


def terminal_value(agent: Any) -> TerminalValue | None:
    """What an algorithm says that the end of a plan is worth: by its critics, or else by its V."""
    critic, value = getattr(agent, "critic", None), getattr(agent, "value", None)
    if isinstance(critic, Critic):
        return TerminalValue(lambda state, plan: critic(state, plan).amin(0), critic.plan_shape[0])
    if isinstance(value, Value):
        return TerminalValue(lambda state, plan: value(state), 0)
    return None


def lookahead(agent: Any, planner: Planner, copies: int) -> PlanningBehaviour:
    """The planner in place of the policy, to evaluate.

    A plan of H actions is worth what the model says of the first H - k, and from there the smallest
    critic's value of the last k: Q(s_{H-1}, a_{H-1}) where values are of single actions, Q(s, plan)
    in MPPVE, and V(s_H), with k = 0, where there are no critics. Each elite takes one particle
    through the horizon (TS-infinity). The actor's plans are what ARC's prior proposes.

    Args:
        agent: An algorithm with `dynamics`, `actor`, `gamma`, and `critic` or `value`.
        planner: Its horizon is H.
        copies: Of the task.
    """

    def propose(state: Tensor, plans: int, horizon: int) -> Tensor:
        return policy_plans(agent.actor.mode, agent.dynamics.step, state, plans, horizon)

    score = ImaginedReturn(
        agent.dynamics,
        "ts_infinity",
        particles=len(agent.dynamics.elites),
        gamma=agent.gamma,
        terminal=terminal_value(agent),
    )
    problem = Problem(score, agent.hparams["action_size"], propose)
    return PlanningBehaviour(lambda state, start: planner(problem, state, start), copies)
