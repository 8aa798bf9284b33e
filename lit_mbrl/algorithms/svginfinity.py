"""SVG(infinity): value gradients along real paths (arXiv 1510.09142; paper 004, appendix, Alg. 1).

  l.4-5   act with pi, insert into D                         the data module
  l.7     train the generative model f on D                  `fit_dynamics`, by the callback
  l.8-9   nothing is known of the value at the end of a path
  l.11    infer the noise of model and policy                `partials`
  l.12-13 v_theta and v_s backwards                          `backward_recursion`
  l.15    a gradient step on the policy by v_theta^0         `training_step`

The recursion is written out as the lecture has it, and not left to automatic differentiation of a
simulated path (which it equals, see the tests): since every state of a real path is known, the
derivatives of all its steps are found in one call of each network, and only products of small
matrices are left to go through backwards. v_theta^0 is then the gradient of one surrogate, the sum
of v_a pi(s_t, eta_t; theta) over the steps.

Where it departs:
  - A path is a window of k real steps, or fewer if the episode terminates, from the
    `data.recent_windows` newest; the paper has the one trajectory that was just made. k is the
    horizon T. A step of the policy is made on B of them at every environment step.
  - The model is refitted at intervals to all of D. It is one Gaussian network whose reward part
    gives r(s, a) by its mean, unless a reward is given: rewards have no noise in the recursion.
  - The derivative of the reward is all there is to learn from. A task that pays 1 until it is over
    has none, so conf/svginfinity.yaml gives a reward with a slope, as the lecture supposes, for
    the gradient alone; what is reported is what the task pays.
  - Actions are squashed by tanh, and eta is that of the Gaussian inside.
  - What follows an action has the importance weight of the path up to it, the product of the
    ratios of pi to the policy that acted, of at most `max_weight`. Without them the derivative at
    an old action moves the policy ever further, since it stays the derivative there however far pi
    has moved: the policy saturates, its Jacobians grow and the gradient's norm passes 1e9 within
    some hundred steps (docs/value_gradients.md). It is the product that is cut off, and not each
    ratio: the product of ratios that are at most 1 falls with every step, and paths would end
    for the gradient after a few.
  - The gradient is clipped at a norm.
"""

import math
from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.algorithms.agent import Agent, adam, require_valid
from lit_mbrl.dynamics import Dynamics, infer_noise, step_with_noise
from lit_mbrl.envs import resolve_reward
from lit_mbrl.errors import require
from lit_mbrl.networks import Actor
from lit_mbrl.objectives import Partials, backward_recursion, jacobian


class SVGInfinity(Agent):
    """Stochastic value gradients of whole paths, without a value function.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        plan_length: k, steps of a path.
        hidden_sizes: Widths of the actor's layers.
        learning_rate: Adam's, for the actor.
        policy_std: Deviation of the policy before squashing; learned as a function of s if None.
        gamma: Discount of one step.
        reward: Dotted path of a known differentiable reward, see `lit_mbrl.envs.rewards`; the
            model's if None.
        max_weight: Largest importance weight, the product of the ratios along a path.
        actor_max_norm: Norm at which the actor's gradient is clipped.
        dynamics_hidden_sizes: Widths of the layers of the model.
        dynamics_weight_decay: L2 coefficient of each of its layers, the output's last.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    needs_paths = True
    needs_log_prob = True

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        plan_length: int = 20,
        hidden_sizes: Sequence[int] = (256, 256),
        learning_rate: float = 3e-4,
        policy_std: float | None = None,
        gamma: float = 0.99,
        reward: str | None = None,
        max_weight: float = 1.0,
        actor_max_norm: float = 1.0,
        dynamics_hidden_sizes: Sequence[int] = (64, 64),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 1e-4),
        fit_patience: int = 5,
    ):
        super().__init__()
        require(plan_length >= 1, "model.plan_length", plan_length, "an integer of at least 1")
        require(max_weight > 0, "model.max_weight", max_weight, "a number > 0")
        valid = policy_std is None or policy_std > 0
        require(valid, "model.policy_std", policy_std, "a number > 0, or null to learn it")
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.plan_length, self.learning_rate, self.gamma = plan_length, learning_rate, gamma
        self.max_weight, self.actor_max_norm = max_weight, actor_max_norm
        self.fit_patience = fit_patience
        self.reward = resolve_reward(reward)
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

    def named_optimizers(self) -> dict[str, Optimizer]:
        return {
            "dynamics": self.dynamics.optimizer(),
            **adam(self.learning_rate, actor=self.actor),
        }

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """log pi(a|s) [...] of actions [..., A] at [..., S], as the data module keeps it."""
        return self.actor.log_prob(observation, action)

    def expect_batches(self, real_rows: int, imagined_rows: int) -> None:
        given = f"{imagined_rows} imagined rows a batch"
        require(imagined_rows == 0, "data.real_ratio", given, "1: SVG learns from real paths")

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        for windows in batch.unbind(0):
            backwards = self.go_backwards(windows)  # l.8-14
            (actor_loss,) = self.step(
                "actor", self.actor_loss, *backwards, max_norm=self.actor_max_norm
            )  # l.15
        self.log_step(
            actor_loss=actor_loss,
            actor_gradient_norm=self.gradient_norms["actor"],
            actor_weight=self.weights(windows).cumprod(1).sum() / windows["mask"].sum(),
        )

    def go_backwards(self, windows: TensorDict) -> tuple[Tensor, Tensor, Tensor]:
        """What `actor_loss` is made of, for windows [B] with paths."""
        partials, noise = self.partials(windows)
        end = torch.zeros_like(windows["path"][:, -1])  # l.8
        value_a, _ = backward_recursion(partials, self.weights(windows), end, self.gamma)
        return windows["path"][:, :-1], noise, value_a

    def actor_loss(self, observation: Tensor, noise: Tensor, value_a: Tensor) -> Tensor:
        """Minus the surrogate whose gradient is v_theta^0, mean over paths.

        Args:
            observation: s_t [B, k, S].
            noise: eta_t [B, k, A].
            value_a: v_a of each step [B, k, A], see `backward_recursion`.
        """
        return -(value_a * self.actor.action(observation, noise)).sum((-2, -1)).mean()

    @torch.no_grad()
    def weights(self, windows: TensorDict) -> Tensor:
        """Factors [B, k] of the importance weights along windows [B], 0 behind a termination.

        Their product up to a step is its weight: that of the ratios, cut off at `max_weight`.
        """
        log_prob = self.log_prob(windows["path"][:, :-1], windows["action"])
        log_ratio = (log_prob - windows["log_prob"]) * windows["mask"]
        # No product so small that its quotients overflow.
        log_product = log_ratio.cumsum(1).clamp(min=-30, max=math.log(self.max_weight))
        log_weight = torch.diff(log_product, dim=1, prepend=torch.zeros_like(log_product[:, :1]))
        return log_weight.exp() * windows["mask"]

    def partials(self, windows: TensorDict) -> tuple[Partials, Tensor]:
        """The derivatives in l.12-13 along windows [B], and eta of l.11 [B, k, A]."""
        path, batch = windows["path"], (len(windows), self.plan_length)
        state, following = path[:, :-1].flatten(0, 1), path[:, 1:].flatten(0, 1)
        action = windows["action"].flatten(0, 1)
        with torch.no_grad():
            noise = infer_noise(self.dynamics, state, action, following)  # xi
            action_noise = self.actor.noise(state, action)  # eta
        with torch.enable_grad():
            state, action = (part.detach().requires_grad_() for part in (state, action))
            stepped, reward = step_with_noise(self.dynamics, state, action, noise)
            if self.reward is not None:
                reward = self.reward(state, action, stepped)
            outputs = torch.cat([stepped, reward.unsqueeze(-1)], -1)
            step_s, step_a = jacobian(outputs, [state, action])
            (policy_s,) = jacobian(self.actor.action(state, action_noise), [state])
        derivatives = (step_s[:, -1], step_a[:, -1], step_s[:, :-1], step_a[:, :-1], policy_s)
        partials = Partials(*(part.unflatten(0, batch) for part in derivatives))
        return partials, action_noise.unflatten(0, batch)
