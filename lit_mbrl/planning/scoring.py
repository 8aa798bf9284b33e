"""What a plan is worth: its return in imagination, by trajectory sampling (PETS, 5)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from functools import partial
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from lit_mbrl.compilation import Compiler
from lit_mbrl.dynamics import Dynamics, FrozenNetworks
from lit_mbrl.envs import Reward
from lit_mbrl.errors import require
from lit_mbrl.objectives.path import Step

Sampling = Literal["ts1", "ts_infinity", "mean", "elite"]
"""How particles go through the ensemble.

- `ts1`: each step of each particle is by an elite drawn at random.
- `ts_infinity`: a particle keeps its elite for the whole horizon; the elites share the particles.
- `elite`: all particles are of one elite, drawn at random for each call.
- `mean`: no noise, the mean of the elites' means; all particles would be the same, so there is one.
"""

UNDEFINED = -1e9
"""The return of a particle whose prediction is infinite or undefined."""

ROWS = {"cpu": 4096, "cuda": 2**18}
"""Rows imagined at a time: what a processor's cache holds, and what keeps a GPU busy."""


Advance = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""`ImaginedReturn._advance` with a step of the model."""


class Model(Protocol):
    """What can be planned with: anything that makes a step of rows."""

    def step(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Next observation [B, S], reward [B] and whether the episode ends there [B].

        Args:
            observation: s [B, S].
            action: a [B, A].
        """


class TerminalValue(NamedTuple):
    """What comes after the steps that are imagined.

    Attributes:
        value: Values [R] of states [R, S] and of the last actions of their plans, [R, k, A].
        tail: k: 0 for V(s_H), 1 for Q(s_{H-1}, a_{H-1}), more for the value of a plan.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    tail: int


class ImaginedReturn:
    """Scores plans by their mean return over P particles.

    A particle's return is sum_{t < H - k} gamma^t r_t + gamma^{H - k} value, without a terminal
    value the sum over all H. Nothing counts that comes after a predicted termination. One that is
    not finite counts as -1e9.

    Args:
        dynamics: The model; one that is no ensemble has nothing but `ts1`, its own step.
        sampling: See `Sampling`.
        particles: P, a multiple of the elites in `ts_infinity`, 1 in `mean`.
        gamma: Discount of one step; PETS has none.
        reward: A known reward in place of the model's.
        terminal: What comes after the imagined steps.
        rows: Particles imagined at a time, which bounds the memory; `ROWS` by default.
        autocast: The context that plans are imagined in, such as `Agent.autocast`.
    """

    def __init__(
        self,
        dynamics: Model,
        sampling: Sampling = "ts_infinity",
        particles: int = 20,
        gamma: float = 1.0,
        reward: Reward | None = None,
        terminal: TerminalValue | None = None,
        rows: int | None = None,
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    ):
        choices = get_args(Sampling)
        require(sampling in choices, "model.sampling", sampling, ", ".join(choices))
        possible = isinstance(dynamics, Dynamics) or sampling == "ts1"
        require(possible, "model.sampling", sampling, "ts1 for a model that is no ensemble")
        elites = len(dynamics.elites) if isinstance(dynamics, Dynamics) else 1
        allowed = {
            "ts1": (particles >= 1, "an integer of at least 1"),
            "ts_infinity": (
                particles >= 1 and particles % elites == 0,
                f"a multiple of model.dynamics_elites ({elites}) with ts_infinity",
            ),
            "elite": (particles >= 1, "an integer of at least 1"),
            "mean": (particles == 1, "1 with mean"),
        }[sampling]
        require(allowed[0], "model.particles", particles, allowed[1])
        self.dynamics, self.sampling, self.particles = dynamics, sampling, particles
        self.gamma, self.reward, self.terminal = gamma, reward, terminal
        self.rows, self.autocast = rows, autocast
        self.compiler: Compiler | None = None

    def __call__(self, state: Tensor, plans: Tensor) -> Tensor:
        """Scores [B, N] of plans [B, N, H, A] from states [B, S]."""
        return self.returns(state, plans).mean(-1)

    @torch.no_grad()
    def returns(self, state: Tensor, plans: Tensor) -> Tensor:
        """The particles' returns [B, N, P] of plans [B, N, H, A] from states [B, S]."""
        candidates = plans.shape[1]
        states = state.repeat_interleave(candidates, 0)
        rows = self.rows or ROWS.get(state.device.type, ROWS["cpu"])
        size = max(1, rows // self.particles)
        chunks = zip(states.split(size), plans.flatten(0, 1).split(size), strict=True)
        with self.autocast():
            step = self._step()
            advance: Advance = partial(self._advance, step)
            if self.compiler is not None:
                advance = partial(self.compiler.call, "a step of plans", self._advance, step)
            found = torch.cat([self._roll(advance, *chunk) for chunk in chunks], 1)
        finite = found.nan_to_num(UNDEFINED, UNDEFINED, UNDEFINED)
        return finite.T.reshape(len(state), candidates, self.particles)

    def _roll(self, advance: Advance, state: Tensor, plan: Tensor) -> Tensor:
        """Returns [P, C] of plans [C, H, A] from states [C, S]."""
        tail = self.terminal.tail if self.terminal is not None else 0
        observation = state.repeat(self.particles, 1)  # a particle of each plan after the other
        imagined = plan.shape[1] - tail
        ended = torch.zeros(len(observation), dtype=torch.bool, device=state.device)
        total = torch.zeros(len(observation), dtype=state.dtype, device=state.device)
        discounts = self.gamma ** torch.arange(imagined + 1, device=state.device)
        steps = plan[:, :imagined].transpose(0, 1)
        if plan.is_cuda:  # compiled code copies what begins elsewhere than at 16 bytes
            steps = steps.contiguous()
            discounts = discounts.unsqueeze(1).repeat(1, 4)[:, 0]
        for planned, discount in zip(steps, discounts[:-1], strict=True):
            observation, total, ended = advance(observation, planned, discount, total, ended)
        if self.terminal is not None:
            value = self.terminal.value(
                observation, plan[:, imagined:].repeat(self.particles, 1, 1)
            )
            total = total.addcmul(value.masked_fill(ended, 0.0), discounts[-1])
        return total.view(self.particles, -1)

    def _advance(
        self,
        step: Step,
        observation: Tensor,
        planned: Tensor,
        discount: Tensor,
        total: Tensor,
        ended: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """States, returns so far and whether it is over, of rows [P C] a step later."""
        action = self._act(observation, planned)
        following, reward, terminated = step(observation, action)
        if self.reward is not None:
            reward = self.reward(observation, action, following)
        total = total.addcmul(reward.masked_fill(ended, 0.0), discount)
        return following, total, ended | terminated

    def compiled(self, compiler: Compiler) -> "ImaginedReturn":
        """The same, whose steps run compiled once the compiler is enabled.

        They are compiled for each number of plans that there is to score, of which ICEM has some.
        """
        found = copy(self)
        found.compiler = compiler
        return found

    def _act(self, observation: Tensor, planned: Tensor) -> Tensor:
        """Actions of rows [P C, S], P blocks of C, by what is planned for the blocks, [C, A]."""
        return planned.repeat(self.particles, 1)

    def _step(self) -> Step:
        """A step of rows [P C, S], P blocks of C, through the ensemble.

        It is another function for each call, whose networks what is compiled of it finds in it.
        """
        dynamics = self.dynamics
        if self.sampling == "ts1" or not isinstance(dynamics, Dynamics):
            return dynamics.step
        if self.sampling == "mean":
            return dynamics.expected_step
        members = dynamics.elites
        if self.sampling == "elite":
            members = members[torch.randint(len(members), (1,), device=members.device)]
        networks = FrozenNetworks(dynamics, members)

        def step(observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            parts = (x.view(len(members), -1, x.shape[-1]) for x in (observation, action))
            following, reward, terminated = networks.step(*parts)
            return following.flatten(0, 1), reward.flatten(), terminated.flatten()

        return step


@torch.no_grad()
def policy_plans(
    act: Callable[[Tensor], Tensor], step: Step, state: Tensor, plans: int, horizon: int
) -> Tensor:
    """Plans [B, N, H, A] that a policy follows in imagination from states [B, S].

    Where the model's states are no longer defined, a plan goes on with the middle of the ranges: it
    is worth little, but an average over plans is not lost.

    Args:
        act: The policy, [R, S] -> [R, A].
        step: The model's, see `Dynamics.step`.
        state: s [B, S].
        plans: N, for each state.
        horizon: H.
    """
    observation = state.repeat_interleave(plans, 0)
    actions = []
    for _ in range(horizon):
        actions.append(act(observation))
        observation = step(observation, actions[-1])[0]
    return torch.stack(actions, 1).nan_to_num(0.0).view(len(state), plans, horizon, -1)
