"""SAC: soft actor-critic (Haarnoja et al., arXiv 1812.05905), the model-free baseline.

Every gradient update of an environment step, on a batch of real transitions:
  1. critics   towards r + gamma (min_i Q_i^-(s', a') - alpha log pi(a'|s')),  a' ~ pi(.|s')  Eq. 5
  2. actor     down alpha log pi(a|s) - min_i Q_i(s, a),  a reparameterised                  Eq. 9
  3. alpha     towards the target entropy                                                    Eq. 18
  4. target critics track the critics
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.algorithms.agent import Agent, adam, require_valid
from lit_mbrl.networks import Actor, Critic, Temperature
from lit_mbrl.objectives import Plan, soft_actor_loss, soft_critic_loss, soft_target


class SAC(Agent):
    """Soft actor-critic with two critics and a learned temperature.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        hidden_sizes: Widths of the actor's and the critics' layers.
        learning_rate: Adam's, for critics, actor and temperature.
        gamma: Discount of one step.
        target_rate: tau of the target critics.
        target_entropy: Entropy that the temperature is learned towards, in nats per step, of
            actions scaled to [-1, 1]; None keeps the initial temperature.
        initial_temperature: First alpha.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int] = (256, 256),
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        target_rate: float = 0.005,
        target_entropy: float | None = -1.0,
        initial_temperature: float = 1.0,
    ):
        super().__init__()
        require_valid(hidden_sizes, learning_rate, gamma, target_rate)
        self.save_hyperparameters()
        self.learning_rate, self.gamma, self.target_rate = learning_rate, gamma, target_rate
        self.target_entropy = target_entropy
        self.actor = Actor(observation_size, action_size, hidden_sizes)
        self.critic = Critic(observation_size, action_size, 1, hidden_sizes, critics=2)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.temperature = Temperature(initial_temperature, learned=target_entropy is not None)

    def named_optimizers(self) -> dict[str, Optimizer]:
        return adam(
            self.learning_rate,
            critic=self.critic,
            actor=self.actor,
            temperature=self.temperature,
        )

    def act(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        return self.actor.mode(observation) if deterministic else self.actor.sample(observation)[0]

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        for transitions in batch.unbind(0):
            critic_loss, value = self.step("critic", self.critic_loss, transitions)  # 1.
            observation = transitions["observation"]
            actor_loss, log_prob = self.step("actor", self.actor_loss, observation)  # 2.
            if self.target_entropy is not None:
                self.step("temperature", self.temperature.loss, log_prob, self.target_entropy)  # 3.
            self.track(self.target_critic, self.critic, self.target_rate)  # 4.
        self.log_step(
            critic_loss=critic_loss,
            critic_value=value,
            actor_loss=actor_loss,
            actor_entropy=-log_prob.mean(),
            temperature=self.temperature(),
        )

    def critic_loss(self, transitions: TensorDict) -> tuple[Tensor, Tensor]:
        """Eq. 5 of SAC on transitions [B], and the critics' mean value."""
        with torch.no_grad():
            next_action = self.sample(transitions["next", "observation"])
        alpha = self.temperature()
        target = soft_target(transitions, next_action, self.target_critic, alpha, self.gamma)
        return soft_critic_loss(transitions, self.critic, target)

    def actor_loss(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 9 of SAC on observations [B, S], and the log-probabilities [B] of the actions."""
        action = self.sample(observation)
        loss = soft_actor_loss(observation, action, self.critic, self.temperature())
        return loss, action.log_prob

    def sample(self, observation: Tensor) -> Plan:
        """Actions as plans of one step, for observations [B, S]."""
        action, log_prob = self.actor.sample(observation)
        return Plan(action.unsqueeze(1), log_prob)
