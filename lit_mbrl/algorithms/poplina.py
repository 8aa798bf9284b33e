"""POPLIN-A: planning in action space around a policy's proposals (Wang and Ba, arXiv 1906.08649).

Algorithm 1, in the form POPLIN-A-Init with behaviour cloning (BC):
  l.4   the policy proposes a plan: its own in the model; CEM
        searches for noise on it; the first action is taken      `plan`, the data module
  l.6   fit the model on D                                       `fit_dynamics`, by the callback
  l.7   distil: move the policy to the actions that were planned `training_step`

The proposal is the policy's plan in the model's mean, one for all particles; the published code
proposes along each particle. What is searched for lies in [-1, 1], which there only the first
Gaussian's cut at two deviations bounds, and is half of the noise, so that every action can be
reached from every proposal; a planner's deviations are half the noise's too.

The published code distils at the end of every episode, up to 100 epochs on its data, stopped early
by a fifth that is held out. Here the policy is updated at every step of the task, on the newest
`data.recent_windows` steps, and the weight decay that the published configuration names but does
not use is used. Its rewards are known; here the reward is learned with the model unless it is
given.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.adam import FusedAdam
from lit_mbrl.algorithms.agent import Agent, require_valid
from lit_mbrl.dynamics import Dynamics, FitReport
from lit_mbrl.envs import resolve_reward
from lit_mbrl.errors import require
from lit_mbrl.networks import PolicyNetwork
from lit_mbrl.planning import (
    ImaginedReturn,
    Planner,
    PlanningBehaviour,
    Problem,
    Sampling,
    Solution,
    Start,
    policy_plans,
    require_no_policy,
)


class POPLINA(Agent):
    """Policy planning in action space, with a policy that is cloned from the plans.

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
        learning_rate: Adam's, for the policy.
        weight_decay: L2 coefficient of the policy's parameters.
        dynamics_hidden_sizes: Widths of the layers of the ensemble's networks.
        dynamics_weight_decay: L2 coefficient of each of their layers, the output's last.
        dynamics_networks: Networks of the ensemble.
        dynamics_elites: How many of them predict.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    learns_from_warmup = False  # its actions were not planned

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        planner: Planner,
        sampling: Sampling = "ts_infinity",
        particles: int = 20,
        reward: str | None = None,
        hidden_sizes: Sequence[int] = (64, 64),
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-5,
        dynamics_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        dynamics_networks: int = 5,
        dynamics_elites: int = 5,
        fit_patience: int = 5,
    ):
        super().__init__()
        require(weight_decay >= 0, "model.weight_decay", weight_decay, "a number >= 0")
        require_no_policy(planner)
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.planner, self.fit_patience = planner, fit_patience
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
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
        known = resolve_reward(reward)
        self.score = ImaginedReturn(
            self.dynamics, sampling, particles, reward=known, autocast=self.autocast
        )
        self.action_size = action_size

    def named_optimizers(self) -> dict[str, Optimizer]:
        parameters, rate = self.actor.parameters(), self.learning_rate
        actor = FusedAdam(parameters, lr=rate, weight_decay=self.weight_decay)
        return {"dynamics": self.dynamics.optimizer(), "actor": actor}

    def act(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        """The first actions [B, A] of plans that start from the policy's alone."""
        return self.plan(observation).action[:, 0]

    def behaviour(
        self, copies: int, deterministic: bool = False, collects: bool = False
    ) -> PlanningBehaviour:
        return PlanningBehaviour(self.plan, copies)

    def plan(self, observation: Tensor, start: Start | None = None) -> Solution:  # l.4
        """Plans for observations [B, S].

        Args:
            observation: s [B, S].
            start: Of the search for noise.
        """
        step, horizon = self.dynamics.expected_step, self.planner.horizon
        proposal = policy_plans(self.actor.mode, step, observation, 1, horizon)

        def score(observation: Tensor, noise: Tensor) -> Tensor:
            return self.score(observation, perturbed(proposal, noise))

        found = self.planner(Problem(score, self.action_size), observation, start)
        action, sample = (perturbed(proposal[:, 0], x) for x in (found.action, found.sample))
        return found._replace(action=action, sample=sample)

    def fit_dynamics(self, transitions: TensorDict) -> FitReport:  # l.6
        """Fit the ensemble to transitions [N] of D."""
        self.actor.set_scale(transitions["observation"])
        return super().fit_dynamics(transitions)

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:  # l.7
        for transitions in batch.unbind(0):
            (actor_loss,) = self.step("actor", self.actor_loss, transitions)
        self.log_step(actor_loss=actor_loss)

    def actor_loss(self, transitions: TensorDict) -> Tensor:
        """Behaviour cloning: the mean of (pi(s) - a)^2 over real transitions [B]."""
        return F.mse_loss(self.actor(transitions["observation"]), transitions["action"][:, 0])


def perturbed(proposal: Tensor, noise: Tensor) -> Tensor:
    """A proposal with twice the noise, cut off at the actions' bounds."""
    return (proposal + 2 * noise).clamp(-1, 1)
