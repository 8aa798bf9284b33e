"""A planner on top of a trained actor-critic: lookahead with its own model and values."""

from typing import Any, NamedTuple

from torch import Tensor

from lit_mbrl.dynamics import Dynamics
from lit_mbrl.errors import require
from lit_mbrl.networks import Actor, Critic, DeterministicActor, Value
from lit_mbrl.objectives.path import Step
from lit_mbrl.planning.behaviour import PlanningBehaviour
from lit_mbrl.planning.planner import Planner, Problem
from lit_mbrl.planning.scoring import (
    ImaginedReturn,
    Model,
    Sampling,
    TerminalValue,
    policy_plans,
)

PARTICLES = 5
"""Particles of a plan where the model is no ensemble, as many as others have elites."""


class Lookahead(NamedTuple):
    """What of an algorithm plans are scored by.

    Attributes:
        model: Its own.
        sampling: How particles go through it.
        particles: How many.
        terminal: What its critics, or else its V, say that the end of a plan is worth.
    """

    model: Model
    sampling: Sampling
    particles: int
    terminal: TerminalValue


class OwnStep(NamedTuple):
    """The model of an algorithm that has one step for it and no ensemble: S2VG."""

    step: Step


def parts_of(agent: Any) -> Lookahead | None:
    """What plans on top of an algorithm are scored by; None if it lacks something."""
    dynamics, critic, value = (
        getattr(agent, name, None) for name in ("dynamics", "critic", "value")
    )
    discounts = isinstance(getattr(agent, "gamma", None), float | int)
    acts = isinstance(getattr(agent, "actor", None), Actor | DeterministicActor)
    if not (discounts and acts):
        return None
    if isinstance(critic, Critic):
        terminal = TerminalValue(lambda s, plan: critic(s, plan).amin(0), critic.plan_shape[0])
    elif isinstance(value, Value):
        terminal = TerminalValue(lambda s, plan: value(s), 0)
    else:
        return None
    if isinstance(dynamics, Dynamics):
        return Lookahead(dynamics, "ts_infinity", len(dynamics.elites), terminal)
    if hasattr(agent, "imagine_step") and agent.termination is not None:
        return Lookahead(OwnStep(agent.imagine_step), "ts1", PARTICLES, terminal)
    return None


def require_lookahead(option: str, agent: Any, planner: Planner) -> None:
    """Check that a planner can be put on top of an algorithm.

    Raises:
        ConfigurationError: If the algorithm lacks what is needed, or plans are shorter than those
            that its critics value.
    """
    name, given, parts = type(agent).__name__, type(planner).__name__, parts_of(agent)
    allowed = f"none for {name}, which lacks a model, an actor or values"
    require(parts is not None, option, given, allowed)
    assert parts is not None
    allowed = (
        f"a horizon of at least {parts.terminal.tail}, the actions that {name}'s values are of"
    )
    given = f"{given} with horizon {planner.horizon}"
    require(planner.horizon >= parts.terminal.tail, option, given, allowed)


def lookahead(agent: Any, planner: Planner, copies: int) -> PlanningBehaviour:
    """The planner in place of the policy, to evaluate.

    A plan of H actions is worth what the model says of the first H - k, and from there the smallest
    critic's value of the last k: Q(s_{H-1}, a_{H-1}) where values are of single actions, Q(s, plan)
    in MPPVE, and V(s_H), with k = 0, where there are no critics. Each elite takes one particle
    through the horizon (TS-infinity), a model that is no ensemble `PARTICLES`. The actor's plans
    are what ARC's prior proposes.

    Args:
        agent: An algorithm for which `require_lookahead` has nothing to say.
        planner: Its horizon is H.
        copies: Of the task.
    """
    parts = parts_of(agent)
    assert parts is not None

    def propose(state: Tensor, plans: int, horizon: int) -> Tensor:
        return policy_plans(agent.actor.mode, parts.model.step, state, plans, horizon)

    score = ImaginedReturn(
        parts.model,
        parts.sampling,
        parts.particles,
        agent.gamma,
        terminal=parts.terminal,
        autocast=agent.autocast,
    )
    problem = Problem(score, agent.hparams["action_size"], propose)
    return PlanningBehaviour(lambda state, start: planner(problem, state, start), copies)
