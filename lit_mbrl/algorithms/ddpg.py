"""DDPG: deep deterministic policy gradient (Lillicrap et al., arXiv 1509.02971), a baseline.

Algorithm 1; every gradient update of an environment step, on a batch of real transitions:
  1. critic   towards y = r + gamma Q'(s', mu'(s'))
  2. actor    up Q(s, mu(s))
  3. the targets Q' and mu' track Q and mu

Departures:
  - A true termination ends the bootstrap.
  - Exploration is by Gaussian noise, one draw a step, and not by an Ornstein-Uhlenbeck process: it
    needs no memory between steps, and TD3 (arXiv 1802.09477, section 6.1) found no use in one.
  - The critic reads the action in its first layer and not in its second, and nothing is
    normalised by batches.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_mbrl.adam import FusedAdam
from lit_mbrl.algorithms.agent import Agent, adam, require_valid
from lit_mbrl.errors import require
from lit_mbrl.networks import Critic, DeterministicActor
from lit_mbrl.objectives import plan_value_target


class DDPG(Agent):
    """Deep deterministic policy gradient.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        hidden_sizes: Widths of the actor's and the critic's layers.
        learning_rate: Adam's, for the actor.
        critic_learning_rate: Adam's, for the critic.
        critic_weight_decay: L2 coefficient of the critic's weights.
        gamma: Discount of one step.
        target_rate: tau of the targets.
        exploration_std: Deviation of the noise on actions, which are scaled to [-1, 1].
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int] = (400, 300),
        learning_rate: float = 1e-4,
        critic_learning_rate: float = 1e-3,
        critic_weight_decay: float = 1e-2,
        gamma: float = 0.99,
        target_rate: float = 0.001,
        exploration_std: float = 0.2,
    ):
        super().__init__()
        rate, decay = critic_learning_rate, critic_weight_decay
        require(rate > 0, "model.critic_learning_rate", rate, "a number > 0")
        require(decay >= 0, "model.critic_weight_decay", decay, "a number >= 0")
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.learning_rate, self.critic_learning_rate = learning_rate, critic_learning_rate
        self.critic_weight_decay = critic_weight_decay
        self.gamma, self.target_rate = gamma, target_rate
        self.actor = DeterministicActor(
            observation_size, action_size, hidden_sizes, exploration_std
        )
        self.critic = Critic(observation_size, action_size, 1, hidden_sizes, critics=1)
        for last in (self.critic.ensemble.weights[-1], self.critic.ensemble.biases[-1]):
            nn.init.uniform_(last, -3e-3, 3e-3)  # section 7: values begin near zero
        self.target_actor = deepcopy(self.actor).requires_grad_(False)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)

    def named_optimizers(self) -> dict[str, Optimizer]:
        decay, rate = self.critic_weight_decay, self.critic_learning_rate
        return {
            "critic": FusedAdam(self.critic.parameters(), lr=rate, weight_decay=decay),
            **adam(self.learning_rate, actor=self.actor),
        }

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        for transitions in batch.unbind(0):
            critic_loss, value = self.step("critic", self.critic_loss, transitions)  # 1.
            (actor_loss,) = self.step("actor", self.actor_loss, transitions["observation"])  # 2.
            self.track(self.target_critic, self.critic, self.target_rate)  # 3.
            self.track(self.target_actor, self.actor, self.target_rate)
        self.log_step(critic_loss=critic_loss, critic_value=value, actor_loss=actor_loss)

    def critic_loss(self, transitions: TensorDict) -> tuple[Tensor, Tensor]:
        """1/2 (Q(s, a) - y)^2 on transitions [B], and the mean value."""
        following = transitions["next"]
        with torch.no_grad():
            state = following["observation"]
            next_value = self.target_critic(state, self.target_actor(state).unsqueeze(1))[0]
        reward, terminated = transitions["reward"], following["terminated"]
        target = plan_value_target(reward, terminated, next_value, self.gamma)
        return self.critic.loss(transitions["observation"], transitions["action"], target)

    def actor_loss(self, observation: Tensor) -> Tensor:
        """The mean of -Q(s, mu(s)) over observations [B, S]."""
        return -self.critic(observation, self.actor(observation).unsqueeze(1)).mean()
