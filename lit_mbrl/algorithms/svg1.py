"""SVG(1): one-step value gradients with experience replay (arXiv 1510.09142, Alg. 2 and 4).

Paper 004, appendix, derives the gradient; the algorithm is the original paper's:
  l.3-5   act with pi, insert into D                         the data module
  l.7     train the generative model f on D                  `fit_dynamics`, by the callback
  l.8     train V on D, its squared errors weighted by w     `value_loss`, Alg. 4
  l.10    sample from D                                      the data module
  l.11    w = pi(a|s; theta^t) / pi(a|s; theta^k)            `weights`
  l.12    infer the noise of model and policy                `actor_loss`
  l.13-14 a step on the policy by v_theta = w (r_a + gamma V'_s' f_a) pi_theta

pi(a|s; theta^k) is kept with each action when it is taken (`needs_log_prob`). With the noise that
was inferred, policy and model lead from s to the real a and s', so that l.13 is the gradient of
w (r(s, a) + gamma V(s')), which is left to automatic differentiation: one step has no recursion.

Where it departs:
  - Weights are cut off at `max_weight`: those of actions that a narrower policy has become unlikely
    to take, or likely, have no useful variance.
  - V' is zero where s' is terminal, value and gradient.
  - The policy's first step comes after `value_updates` of V: the derivative of a V that knows
    nothing yet drives the policy into its bounds, where no replayed action has weight any more.
  - The network that V is trained towards follows by Polyak averaging, not by copies at intervals.
  - The model is refitted at intervals to all of D. It is one Gaussian network whose reward part
    gives r(s, a) by its mean.
  - Actions are squashed by tanh, and eta is that of the Gaussian inside.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.algorithms.agent import Agent, adam, require_valid
from lit_mbrl.dynamics import Dynamics, infer_noise, step_with_noise
from lit_mbrl.errors import require
from lit_mbrl.networks import Actor, Value
from lit_mbrl.objectives import plan_value_target


class SVG1(Agent):
    """Stochastic value gradients of one real step, with a value function and replay.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        hidden_sizes: Widths of the layers of actor and V.
        learning_rate: Adam's, for actor and V.
        policy_std: Deviation of the policy before squashing; learned as a function of s if None.
        gamma: Discount of one step.
        target_rate: Polyak rate of the target of V.
        max_weight: Largest importance weight.
        value_updates: Gradient steps of V before the policy's first.
        actor_max_norm: Norm at which the actor's gradient is clipped.
        dynamics_hidden_sizes: Widths of the layers of the model.
        dynamics_weight_decay: L2 coefficient of each of its layers, the output's last.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    needs_log_prob = True
    updates: int  # of V so far; not a tensor, which a GPU would be waited for to read

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        hidden_sizes: Sequence[int] = (256, 256),
        learning_rate: float = 3e-4,
        policy_std: float | None = None,
        gamma: float = 0.99,
        target_rate: float = 0.005,
        max_weight: float = 5.0,
        value_updates: int = 0,
        actor_max_norm: float = 10.0,
        dynamics_hidden_sizes: Sequence[int] = (64, 64),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 1e-4),
        fit_patience: int = 5,
    ):
        super().__init__()
        require(max_weight > 0, "model.max_weight", max_weight, "a number > 0")
        valid = policy_std is None or policy_std > 0
        require(valid, "model.policy_std", policy_std, "a number > 0, or null to learn it")
        require(value_updates >= 0, "model.value_updates", value_updates, "an integer >= 0")
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.learning_rate, self.gamma, self.target_rate = learning_rate, gamma, target_rate
        self.max_weight, self.actor_max_norm = max_weight, actor_max_norm
        self.fit_patience = fit_patience
        self.dynamics = Dynamics(
            observation_size,
            action_size,
            termination,
            dynamics_hidden_sizes,
            dynamics_weight_decay,
            networks=1,
            elites=1,
        )
        self.actor = Actor(observation_size, action_size, hidden_sizes, policy_std)
        self.value = Value(observation_size, hidden_sizes)
        self.target_value = deepcopy(self.value).requires_grad_(False)
        self.value_updates = value_updates
        self.updates = 0

    def named_optimizers(self) -> dict[str, Optimizer]:
        return {
            "dynamics": self.dynamics.optimizer(),
            **adam(self.learning_rate, value=self.value, actor=self.actor),
        }

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """log pi(a|s) [B] of actions [B, A] at observations [B, S], as the data module keeps it."""
        return self.actor.log_prob(observation, action)

    def expect_batches(self, real_rows: int, imagined_rows: int) -> None:
        given = f"{imagined_rows} imagined rows a batch"
        require(imagined_rows == 0, "data.real_ratio", given, "1: SVG learns from real steps")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["svg1_updates"] = self.updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.updates = checkpoint["svg1_updates"]

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        for transitions in batch.unbind(0):  # l.10
            weight = self.weights(transitions)  # l.11
            value_loss, value = self.step("value", self.value_loss, transitions, weight)  # l.8
            self.track(self.target_value, self.value, self.target_rate)
            self.updates += 1
            if self.updates > self.value_updates:
                (actor_loss,) = self.step(
                    "actor", self.actor_loss, transitions, weight, max_norm=self.actor_max_norm
                )  # l.14
        self.log_step(critic_loss=value_loss, critic_value=value, actor_weight=weight.mean())
        if self.updates > self.value_updates:
            norm = self.gradient_norms["actor"]
            self.log_step(actor_loss=actor_loss, actor_gradient_norm=norm)

    @torch.no_grad()
    def weights(self, transitions: TensorDict) -> Tensor:
        """Importance weights [B] of the actions of transitions [B]."""
        log_prob = self.log_prob(transitions["observation"], transitions["action"][:, 0])
        return (log_prob - transitions["log_prob"][:, 0]).exp().clamp(max=self.max_weight)

    def value_loss(self, transitions: TensorDict, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Half the weighted squared error of V on transitions [B] (Alg. 4); and its mean."""
        following = transitions["next"]
        next_value = self.target_value(following["observation"])
        target = plan_value_target(
            transitions["reward"], following["terminated"], next_value, self.gamma
        )
        value = self.value(transitions["observation"])
        return 0.5 * (weight * (value - target).square()).mean(), value.detach().mean()

    def actor_loss(self, transitions: TensorDict, weight: Tensor) -> Tensor:
        """Minus w (r + gamma V(s')), whose gradient is l.13, mean over transitions [B]."""
        state, action = transitions["observation"], transitions["action"][:, 0]
        following, terminated = (transitions["next", key] for key in ("observation", "terminated"))
        with torch.no_grad():  # l.12
            noise = infer_noise(self.dynamics, state, action, following)  # xi
            action_noise = self.actor.noise(state, action)  # eta
        action = self.actor.action(state, action_noise)
        following, reward = step_with_noise(self.dynamics, state, action, noise)
        value = torch.where(terminated, torch.zeros_like(reward), self.value(following))
        return -(weight * (reward + self.gamma * value)).mean()
