"""What the algorithms that improve their policy as SAC does have in common (arXiv 1812.05905)."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.algorithms.agent import Agent, adam
from lit_mbrl.errors import require
from lit_mbrl.networks import Actor, Critic, Temperature
from lit_mbrl.objectives import Plan, soft_actor_loss, soft_target


class SoftActorCritic(Agent):
    """Base of the algorithms with a squashed Gaussian policy, critics with slow copies, and alpha.

    The losses are SAC's, and those of its extension to plans of k steps (paper 000, App. C) where
    `sample_plan` returns such. An algorithm calls `make_actor_critic` in its constructor, after the
    dynamics is made if it has one, and writes `training_step` with the methods below; those that
    differ it replaces.
    """

    learning_rate: float
    gamma: float
    target_rate: float
    target_entropy: float | None
    max_return: float | None = None

    def make_actor_critic(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int],
        temperature: Temperature,
        plan_length: int = 1,
        critics: int = 2,
    ) -> None:
        """Make `actor`, `critic`, `target_critic`, and take the `temperature`."""
        self.actor = Actor(observation_size, action_size, hidden_sizes)
        self.critic = Critic(observation_size, action_size, plan_length, hidden_sizes, critics)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.temperature = temperature

    def limit_targets(self, max_return: float | None) -> None:
        """Have the critics' targets limited from now on, see `soft_target`.

        Raises:
            ConfigurationError: If returns have no limit since they are not discounted.
        """
        limited = max_return is None or self.gamma < 1
        require(limited, "model.max_return", max_return, "null where model.gamma is 1")
        self.max_return = max_return

    def named_optimizers(self) -> dict[str, Optimizer]:
        """The dynamics' if there is one, and an Adam each for critics, actor and temperature."""
        dynamics = {"dynamics": self.dynamics.optimizer()} if hasattr(self, "dynamics") else {}
        learned = {"critic": self.critic, "actor": self.actor, "temperature": self.temperature}
        return {**dynamics, **adam(self.learning_rate, **learned)}

    def sample_plan(self, observation: Tensor) -> Plan:
        """Plans of one step, that is reparameterised actions, for observations [B, S]."""
        action, log_prob = self.actor.sample(observation)
        return Plan(action.unsqueeze(1), log_prob)

    def critic_loss(
        self, windows: TensorDict, next_plan: Plan | None = None
    ) -> tuple[Tensor, Tensor]:
        """Eq. 5 of SAC, Eq. 46-51 of paper 000.

        Args:
            windows: [B], of as many steps as a plan.
            next_plan: Plans [B] at their ends; made here if None.

        Returns:
            The loss, and the critics' mean value.
        """
        if next_plan is None:
            with torch.no_grad():
                next_plan = self.sample_plan(windows["next", "observation"])
        alpha = self.temperature()
        target = soft_target(
            windows, next_plan, self.target_critic, alpha, self.gamma, self.max_return
        )
        return self.critic.loss(windows["observation"], windows["action"], target)

    def actor_loss(self, observation: Tensor) -> tuple[Tensor, ...]:
        """Eq. 9 of SAC, Eq. 52-53 of paper 000, at observations [B, S]; and log pi [B]."""
        plan = self.sample_plan(observation)
        loss = soft_actor_loss(observation, plan, self.critic, self.temperature())
        return loss, plan.log_prob

    def improve_policy(
        self, observation: Tensor, *inputs: Any, max_norm: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """A gradient step of the actor, then one of the temperature (Eq. 18 of SAC).

        Args:
            observation: s [B, S].
            inputs: More of what `actor_loss` takes.
            max_norm: See `step`.

        Returns:
            The actor's loss, and log pi [B].
        """
        loss, log_prob = self.step(
            "actor", self.actor_loss, observation, *inputs, max_norm=max_norm
        )
        if self.target_entropy is not None:
            self.step("temperature", self.temperature.loss, log_prob, self.target_entropy)
        return loss, log_prob

    def learn(self, batch: TensorDict) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """SAC's update on each of the transitions [B] of batches [G, B].

        Returns:
            The last ones' losses and values, as `log_update` takes them.
        """
        for transitions in batch.unbind(0):
            critic_loss, value = self.step("critic", self.critic_loss, transitions)  # Eq. 5
            actor_loss, log_prob = self.improve_policy(transitions["observation"])  # Eq. 9, 18
            self.track(self.target_critic, self.critic, self.target_rate)
        return critic_loss, value, actor_loss, log_prob

    def log_update(
        self,
        critic_loss: Tensor,
        value: Tensor,
        actor_loss: Tensor,
        log_prob: Tensor,
        **more: Tensor,
    ) -> None:
        """Log what `critic_loss` and `improve_policy` returned last, and `more` by its names."""
        self.log_step(
            critic_loss=critic_loss,
            critic_value=value,
            actor_loss=actor_loss,
            actor_entropy=-log_prob.mean() / self.plan_length,
            temperature=self.temperature(),
            **more,
        )
