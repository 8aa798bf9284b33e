"""POPLIN-P: planning in the space of a policy's parameters (Wang and Ba, arXiv 1906.08649).

Algorithm 1, in the form POPLIN-P-Sep with parameter averaging (AVG):
  l.4   CEM searches for a change of the policy's parameters for
        each of H steps; the first changed policy acts           `plan`, the data module
  l.6   fit the model on D                                       `fit_dynamics`, by the callback
  l.7   distil: theta <- theta + the mean of the first changes
        of the plans since the last time                         `fit_dynamics`

What is searched for lies in [-1, 1] and is multiplied by `noise_scale`: the changes are bounded,
and a planner's deviations are in these units.

The published code fits and distils at the end of every episode. Here both are done when the model
is fitted, in mid-episode too; the changes that are averaged, and those that the next plan starts
from, were found for the theta and the scale of observations before. Its AVG sets theta to the mean
of the changes alone; here theta moves by it. Its rewards are known; here the reward is learned with
the model unless it is given.
"""

from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.algorithms.agent import Agent, require_valid
from lit_mbrl.dynamics import Dynamics, FitReport
from lit_mbrl.envs import resolve_reward
from lit_mbrl.errors import require
from lit_mbrl.networks import PolicyNetwork
from lit_mbrl.planning import (
    Planner,
    PlanningBehaviour,
    Problem,
    Sampling,
    Solution,
    Start,
    require_no_policy,
)
from lit_mbrl.planning.policy_search import PerturbedReturn


class POPLINP(Agent):
    """Policy planning in parameter space, with a policy that is the average of the planned ones.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        planner: What searches; CEM in the paper.
        sampling: How particles go through the ensemble, see `Sampling`.
        particles: Of each plan.
        reward: Dotted path of a known reward function, see `lit_mbrl.envs.rewards`; learned if
            None.
        hidden_sizes: Widths of the policy's layers.
        noise_scale: Largest change of a parameter.
        dynamics_hidden_sizes: Widths of the layers of the ensemble's networks.
        dynamics_weight_decay: L2 coefficient of each of their layers, the output's last.
        dynamics_networks: Networks of the ensemble.
        dynamics_elites: How many of them predict.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    learns_from_batches = False
    change_sum: Tensor
    changes: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        planner: Planner,
        sampling: Sampling = "ts_infinity",
        particles: int = 20,
        reward: str | None = None,
        hidden_sizes: Sequence[int] = (32,),
        noise_scale: float = 1.0,
        dynamics_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        dynamics_networks: int = 5,
        dynamics_elites: int = 5,
        fit_patience: int = 5,
    ):
        super().__init__()
        require(noise_scale > 0, "model.noise_scale", noise_scale, "a number > 0")
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
        self.actor = PolicyNetwork(observation_size, action_size, hidden_sizes)
        self.actor.requires_grad_(False)
        known = resolve_reward(reward)
        self.score = PerturbedReturn(
            self.actor,
            noise_scale,
            self.dynamics,
            sampling,
            particles,
            reward=known,
            autocast=self.autocast,
        )
        self.problem = Problem(self.score, len(self.actor.theta))
        self.register_buffer("change_sum", torch.zeros_like(self.actor.theta))
        self.register_buffer("changes", torch.zeros(()))
        self._newest_change = torch.zeros_like(self.actor.theta)

    def named_optimizers(self) -> dict[str, Optimizer]:
        return {"dynamics": self.dynamics.optimizer()}

    def act(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        """Actions [B, A] of policies that are searched for from theta."""
        return self.plan(observation).action[:, 0]

    def behaviour(
        self, copies: int, deterministic: bool = False, collects: bool = False
    ) -> PlanningBehaviour:
        return PlanningBehaviour(self.plan, copies)

    def plan(self, observation: Tensor, start: Start | None = None) -> Solution:  # l.4
        """Plans of one action for observations [B, S]: later ones depend on the states met.

        Args:
            observation: s [B, S].
            start: Of the search for changes.
        """
        found = self.planner(self.problem, observation, start)
        states = observation.unsqueeze(1)
        action, sample = (self.score.act(states, x[:, 0]) for x in (found.action, found.sample))
        self._newest_change = self.score.scale * found.action[:, 0].mean(0)
        return found._replace(action=action, sample=sample)

    def fit_dynamics(self, transitions: TensorDict) -> FitReport:  # l.6-7
        """Fit the ensemble to transitions [N] of D, and distil."""
        self.actor.set_scale(transitions["observation"])
        self.distil()
        return super().fit_dynamics(transitions)

    @torch.no_grad()
    def distil(self) -> None:  # l.7
        """theta <- theta + the mean of the changes since the last time."""
        self.actor.theta.add_(self.change_sum / self.changes.clamp(min=1))
        self.change_sum.zero_()
        self.changes.zero_()

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        """Note the first change of the plan that this step was taken by."""
        self.change_sum += self._newest_change
        self.changes += 1
        self.log_step(actor_change=self._newest_change.norm(), actor_theta=self.actor.theta.norm())
