"""STEVE: stochastic ensemble value expansion (Buckman et al., arXiv 1807.01675) on DDPG.

Every gradient update of an environment step, on a batch of real transitions:
  1. from s' the target policy mu' is unrolled for H steps, once by each of M networks
  2. each of the networks and each of the L target critics gives the candidates T_0..T_H, which
     bootstrap after 0..H imagined steps                                     section 3.1
  3. the target is their means over networks and critics, weighted by the inverse of their
     variances                                                               section 3.2
  4. all critics towards it; mu up the critics' mean; the targets track

Departures:
  - A network of this collection predicts state and reward together, where the paper has M
    transition and N reward functions: the combinations are M L instead of M N L.
  - The networks are Gaussian and sampled where the paper's are deterministic, so the variance holds
    their noise too, and a noisy task counts as an uncertain model. The M networks are the elites.
  - Terminations are predicted as the dynamics predicts them; a real one leaves the reward alone.
  - Without imagined steps (H = 0) it is DDPG with L critics.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.algorithms.agent import Agent, adam, require_valid
from lit_mbrl.dynamics import Dynamics
from lit_mbrl.errors import require
from lit_mbrl.networks import Critic, DeterministicActor
from lit_mbrl.objectives import (
    candidate_targets,
    inverse_variance_mean,
    unroll,
)


class STEVE(Agent):
    """Stochastic ensemble value expansion.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        horizon: H, the longest expansion in imagined steps.
        hidden_sizes: Widths of the actor's and the critics' layers.
        critics: L, number of critics.
        learning_rate: Adam's, for critics and actor.
        gamma: Discount of one step.
        target_rate: tau of the targets.
        exploration_std: Deviation of the noise on actions, which are scaled to [-1, 1].
        dynamics_hidden_sizes: Widths of the layers of the ensemble's networks.
        dynamics_weight_decay: L2 coefficient of each of their layers, the output's last.
        dynamics_networks: Networks of the ensemble.
        dynamics_elites: M, how many of them predict.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        horizon: int = 3,
        hidden_sizes: Sequence[int] = (128, 128, 128, 128),
        critics: int = 4,
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        target_rate: float = 0.005,
        exploration_std: float = 0.2,
        dynamics_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        dynamics_networks: int = 4,
        dynamics_elites: int = 4,
        fit_patience: int = 5,
    ):
        super().__init__()
        require(horizon >= 0, "model.horizon", horizon, "an integer >= 0; 0 is DDPG")
        require(critics >= 2, "model.critics", critics, "an integer of at least 2")
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.horizon, self.learning_rate = horizon, learning_rate
        self.gamma, self.target_rate = gamma, target_rate
        self.fit_patience = fit_patience
        self.dynamics = Dynamics(
            observation_size,
            action_size,
            termination,
            dynamics_hidden_sizes,
            dynamics_weight_decay,
            dynamics_networks,
            dynamics_elites,
        )
        self.actor = DeterministicActor(
            observation_size, action_size, hidden_sizes, exploration_std
        )
        self.critic = Critic(observation_size, action_size, 1, hidden_sizes, critics)
        self.target_actor = deepcopy(self.actor).requires_grad_(False)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)

    def named_optimizers(self) -> dict[str, Optimizer]:
        return {
            "dynamics": self.dynamics.optimizer(),
            **adam(self.learning_rate, critic=self.critic, actor=self.actor),
        }

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        for transitions in batch.unbind(0):
            target, weights = inverse_variance_mean(self.candidates(transitions))  # 1.-3.
            observation, action = transitions["observation"], transitions["action"]
            critic_loss, value = self.step("critic", self.critic.loss, observation, action, target)
            (actor_loss,) = self.step("actor", self.actor_loss, observation)
            self.track(self.target_critic, self.critic, self.target_rate)
            self.track(self.target_actor, self.actor, self.target_rate)
        lengths = torch.arange(self.horizon + 1.0, device=weights.device)
        self.log_step(
            critic_loss=critic_loss,
            critic_value=value,
            actor_loss=actor_loss,
            rollout_mean_length=(weights * lengths).sum(-1).mean(),
        )

    @torch.no_grad()
    def candidates(self, transitions: TensorDict) -> Tensor:
        """T_0..T_H of real transitions [B], of every network and critic [M L, B, H + 1]."""
        following, members = transitions["next"], self.dynamics.elites
        rows = (len(members), *transitions.batch_size)
        path = unroll(  # 1.
            following["observation"].expand(*rows, -1),
            self.horizon,
            lambda state: (self.target_actor(state), state.new_zeros(state.shape[:-1])),
            lambda state, action: self.dynamics.step_with(members, state, action),
            following["terminated"].expand(rows),
        )
        states, actions = path.observation.flatten(0, 2), path.action.flatten(0, 2)
        value = self.target_critic(states, actions.unsqueeze(1))
        value = value.unflatten(1, path.ended.shape)  # [L, M, B, H + 1]
        reward = torch.cat([transitions["reward"].expand(*rows, 1), path.reward], -1)
        every = (len(value), *path.ended.shape)
        candidates = candidate_targets(  # 2.
            reward.expand(every), path.ended.expand(every), value, self.gamma
        )
        return candidates.flatten(0, 1)

    def actor_loss(self, observation: Tensor) -> Tensor:
        """The mean of -Q_l(s, mu(s)) over critics and observations [B, S]."""
        return -self.critic(observation, self.actor(observation).unsqueeze(1)).mean()
