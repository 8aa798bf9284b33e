"""PETS: probabilistic ensembles with trajectory sampling (arXiv 1805.12114; paper 004).

Algorithm 1, as this collection's roles share it out:
  l.1     begin with data of random actions                     the data module
  l.3     fit the ensemble on D                                  `fit_dynamics`, by the callback
  l.5-8   at each step, CEM over action sequences; a sequence    `plan`
          is worth its mean return over P particles, each
          taken through the ensemble by TS1 or TS-infinity
  l.9-10  take the first action, add to D                        the data module

Departures: the ensemble is fitted as in MBPO, with early stopping, every so many steps and not at
the end of each episode; the reward is learned with the dynamics unless it is given; nothing that
comes after a predicted termination counts, of which the paper's tasks have none.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.algorithms.agent import Agent, require_valid
from lit_mbrl.dynamics import Dynamics
from lit_mbrl.envs import resolve_reward
from lit_mbrl.planning import (
    ImaginedReturn,
    Planner,
    PlanningBehaviour,
    Problem,
    Sampling,
    Solution,
    Start,
    require_no_policy,
)


class PETS(Agent):
    """A learned model and a planner; there is no policy but the plan.

    It acts alike to collect and to be evaluated.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        planner: CEM in the paper.
        sampling: How particles go through the ensemble, see `Sampling`.
        particles: P.
        gamma: Discount of one step; the paper has none.
        reward: Dotted path of a known reward function, see `lit_mbrl.envs.rewards`; learned if
            None.
        dynamics_hidden_sizes: Widths of the layers of the ensemble's networks.
        dynamics_weight_decay: L2 coefficient of each of their layers, the output's last.
        dynamics_networks: Networks of the ensemble.
        dynamics_elites: How many of them predict.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    learns_from_batches = False
    _score: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        planner: Planner,
        sampling: Sampling = "ts_infinity",
        particles: int = 20,
        gamma: float = 1.0,
        reward: str | None = None,
        dynamics_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        dynamics_networks: int = 5,
        dynamics_elites: int = 5,
        fit_patience: int = 5,
    ):
        super().__init__()
        require_no_policy(planner)
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.planner, self.fit_patience = planner, fit_patience
        self.dynamics = Dynamics(
            observation_size,
            action_size,
            termination,
            dynamics_hidden_sizes,
            dynamics_weight_decay,
            dynamics_networks,
            dynamics_elites,
        )
        known = resolve_reward(reward)
        score = ImaginedReturn(
            self.dynamics, sampling, particles, gamma, known, autocast=self.autocast
        )
        self.problem = Problem(score, action_size)
        self.collecting = self.problem._replace(score=score.compiled(self.compiler))
        # Of the newest plans; written in place, as all that a captured plan writes.
        self.register_buffer("_score", torch.tensor(math.nan), persistent=False)

    def named_optimizers(self) -> dict[str, Optimizer]:
        return {"dynamics": self.dynamics.optimizer()}

    def plan(self, state: Tensor, start: Start | None = None) -> Solution:  # l.5-8
        """Plans for states [B, S]."""
        return self._plan(self.problem, state, start)

    def collecting_plan(self, state: Tensor, start: Start | None = None) -> Solution:
        """As `plan`, with the model's steps compiled once that is enabled."""
        return self._plan(self.collecting, state, start)

    def _plan(self, problem: Problem, state: Tensor, start: Start | None) -> Solution:
        solution = self.planner(problem, state, start)
        self._score.copy_(solution.score.mean())
        return solution

    def act(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        """The first actions [B, A] of plans that start from nothing."""
        return self.plan(observation).action[:, 0]

    def behaviour(
        self, copies: int, deterministic: bool = False, collects: bool = False
    ) -> PlanningBehaviour:
        """Plans that start from what is left of the last ones."""
        captured = partial(self.compiler.capture, "the plan", self.collecting_plan)
        return PlanningBehaviour(captured if collects else self.plan, copies)

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        """Nothing is learned between two fits; the last plan was made to take this step."""
        self.log_step(plan_score=self._score)
