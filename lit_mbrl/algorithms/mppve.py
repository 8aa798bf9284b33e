"""MPPVE: planning policy learning with multi-step plan value estimation (paper 000, Algorithm 1).

  l.1     explore for U steps                                the data module's warm-up
  l.3     fit p_theta on D_env, Eq. 10                       `fit_dynamics`, by the callback
  l.5     take an action with pi, add to D_env               the data module
  l.6-8   branched rollouts from D_env into D_model          `imagine`, by the callback
  l.9-12  G critic updates on windows of k steps             `learn`
  l.13    one actor update on real states                    `learn`

The soft form (App. C) is the default and the form of the paper's runs; a fixed temperature of 0
leaves the entropy out and gives the vanilla form (Eq. 11-18), see conf/mppve_vanilla.yaml.

Where the paper is silent or its published code differs, the published code made the paper's
numbers and is followed (but for fits to fewer than 5,000 transitions, see `PATIENT_UPDATES` in
lit_mbrl/dynamics/fitting.py):
  - Rollouts are made after each fit and not at every step (l.6-8); a share of each batch, 5%, is
    real (l.10: from D_env and D_model); alpha is learned, of which App. C has no rule.
  - Imagined windows begin with k - 1 real steps, so that a rollout of one step yields windows.
  - Two critics, the minimum of their targets in Eq. 51 and of themselves in Eq. 53
    (`critics: 1` is the letter of the paper).
  - The gradient of Eq. 18 and 54 does not pass through p_theta: each action of a plan is
    differentiated at the state the model led to, which is held fixed
    (`gradient_through_model: true` follows the gradient into the model).
  - Actions of a plan, and their log-probabilities, from index m > L on, with L the present rollout
    length, carry no gradient: they are taken m imagined steps from a real state, and D_model has
    no state that far (`plan_gradient_cut`). The published code lets L grow at fits alone; with
    Table 1's schedules that is the same cut.
  - Actions and log-probabilities after a termination the model predicts are zero, as in windows
    that end in a true one (`mask_plan`).
  - A plan's target entropy is k times the table's (`scale_target_entropy`).
  - The actor is updated on the real states of the step's G batches, 240 with the paper's sizes,
    and its gradient's norm is clipped at 10.
The published squared error has no 1/2; with Adam the factor changes nothing but its epsilon's
share, and Eq. 13 is kept. The published code measures log-probabilities of actions in the task's
units, here they are scaled to [-1, 1] first. Nothing changes for tasks with that range. For
InvertedPendulum, whose range is [-3, 3], Table 1's target entropy of -0.05 is therefore
-0.05 - log 3 = -1.149 here. (The published policy's actions end at 1 there, as its squashing does,
and leave two thirds of the range unused; ours use it all.) The squashing's part of log pi is exact
here; the published code's, which adds an epsilon inside of the logarithm, is at most 15.9 for each
number.

The published runs are of tasks that pay the step that falls for being alive; gymnasium's do so up
to -v4. In InvertedPendulum-v5 a fall is the only step that pays 0 and not 1, and what falls pay is
most of the holdout's error, by which fits stop and elites are chosen: they end after fewer epochs,
with errors of states 4 to 20 times as large (one seed, docs/performance.md). `data.env_id:
InvertedPendulum-v4` is the published task.
"""

from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.algorithms.agent import require_valid
from lit_mbrl.algorithms.soft_actor_critic import SoftActorCritic
from lit_mbrl.data import EnvironmentReplay
from lit_mbrl.dynamics import Dynamics
from lit_mbrl.errors import require
from lit_mbrl.imagination import branched_rollouts
from lit_mbrl.networks import Temperature
from lit_mbrl.objectives import Plan, soft_actor_loss


class MPPVE(SoftActorCritic):
    """Model-based planning policy learning with multi-step plan value estimation.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        plan_length: k, steps of a plan.
        hidden_sizes: Widths of the actor's and the critics' layers.
        critics: Number of critics; their minimum is taken.
        learning_rate: Adam's, for critics, actor and temperature.
        gamma: Discount of one step.
        target_rate: tau of the target critics (l.11).
        target_entropy: Entropy that the temperature is learned towards, in nats per step, of
            actions scaled to [-1, 1]: Table 1's, less the sum of log (high - low) / 2 over the
            action's numbers. None keeps the initial temperature.
        scale_target_entropy: Multiply it by k, as the published runs do.
        initial_temperature: First alpha.
        max_return: The most that a discounted return can be, b / (1 - gamma) for rewards of at
            most b >= 0; targets are then limited to it, see `soft_target`. None, as in the paper,
            limits nothing.
        actor_max_norm: Norm at which the actor's gradient is clipped.
        gradient_through_model: Let the actor's gradient pass through the model's steps.
        plan_gradient_cut: Cut the gradient of plan actions with an index beyond the rollout length.
        mask_plan: Zero plan actions after a predicted termination.
        dynamics_hidden_sizes: Widths of the layers of the ensemble's networks.
        dynamics_weight_decay: L2 coefficient of each of their layers, the output's last.
        dynamics_networks: Networks of the ensemble.
        dynamics_elites: How many of them predict.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    real_rows: int  # the first ones of each batch

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        plan_length: int = 3,
        hidden_sizes: Sequence[int] = (256, 256),
        critics: int = 2,
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        target_rate: float = 0.005,
        target_entropy: float | None = -1.0,
        scale_target_entropy: bool = True,
        initial_temperature: float = 1.0,
        max_return: float | None = None,
        actor_max_norm: float = 10.0,
        gradient_through_model: bool = False,
        plan_gradient_cut: bool = True,
        mask_plan: bool = True,
        dynamics_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        dynamics_networks: int = 7,
        dynamics_elites: int = 5,
        fit_patience: int = 5,
    ):
        super().__init__()
        require(plan_length >= 1, "model.plan_length", plan_length, "an integer of at least 1")
        require(critics >= 1, "model.critics", critics, "an integer of at least 1")
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.plan_length, self.learning_rate = plan_length, learning_rate
        self.gamma, self.target_rate = gamma, target_rate
        self.limit_targets(max_return)
        self.target_entropy = target_entropy
        if target_entropy is not None and scale_target_entropy:
            self.target_entropy = target_entropy * plan_length
        self.actor_max_norm, self.fit_patience = actor_max_norm, fit_patience
        self.gradient_through_model = gradient_through_model
        self.plan_gradient_cut, self.mask_plan = plan_gradient_cut, mask_plan
        self.dynamics = Dynamics(
            observation_size,
            action_size,
            termination,
            dynamics_hidden_sizes,
            dynamics_weight_decay,
            dynamics_networks,
            dynamics_elites,
        )
        temperature = Temperature(initial_temperature, learned=target_entropy is not None)
        sizes = (observation_size, action_size, hidden_sizes)
        self.make_actor_critic(*sizes, temperature, plan_length, critics)

    def expect_batches(self, real_rows: int, imagined_rows: int) -> None:
        require(
            real_rows >= 1,
            "data.real_ratio",
            f"{real_rows} real rows a batch",
            "at least 1 / data.batch_size: MPPVE's actor learns from real states",
        )
        self.real_rows = real_rows

    def imagine(self, replay: EnvironmentReplay, rollouts: int) -> TensorDict:  # l.6-8
        """Windows [M] along `rollouts` branched rollouts of the present rollout length."""
        segments = replay.sample_segments(rollouts)
        return branched_rollouts(segments, self.rollout_length, self.act, self.dynamics.step)

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        learned = self.compiler.capture("the updates", self.learn, batch, self.differentiated)
        self.log_update(*learned)

    def learn(
        self, batch: TensorDict, differentiated: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The updates on windows [G, B], as of `SoftActorCritic`; see `sample_plan`."""
        # Neither the policy nor the model changes during the critic updates, so the plans of all
        # G targets are made at once.
        following = batch["next", "observation"].flatten(0, 1)
        next_plan = self.compiler.call("the plans", self.sample_plan, following)
        plans = zip(*(part.view(*batch.shape, *part.shape[1:]) for part in next_plan), strict=True)
        for windows, (action, log_prob) in zip(batch.unbind(0), plans, strict=True):  # l.9
            critic_loss, value = self.step(
                "critic", self.critic_loss, windows, Plan(action, log_prob)
            )  # l.10, Eq. 46-51
            self.track(self.target_critic, self.critic, self.target_rate)  # l.11
        real = batch["observation"][:, : self.real_rows].flatten(0, 1)
        actor_loss, log_prob = self.improve_policy(
            real, differentiated, max_norm=self.actor_max_norm
        )  # l.13
        return critic_loss, value, actor_loss, log_prob

    @property
    def differentiated(self) -> int:
        """How many actions of a plan carry a gradient at the present rollout length."""
        reached = self.rollout_length + 1 if self.plan_gradient_cut else self.plan_length
        return min(reached, self.plan_length)

    def sample_plan(self, observation: Tensor, differentiated: int | None = None) -> Plan:
        """Plans of k steps for observations [B, S] (Eq. 1-4), reparameterised (Eq. 18).

        Only the first `differentiated` actions carry a gradient; all if None.
        """
        alive = torch.ones(len(observation), dtype=torch.bool, device=observation.device)
        actions, log_probs = [], []
        for m in range(self.plan_length):
            action, log_prob = self.actor.sample(observation)  # Eq. 2
            kept, kept_log_prob = action * alive.unsqueeze(-1), log_prob * alive
            if differentiated is not None and m >= differentiated:
                kept, kept_log_prob = kept.detach(), kept_log_prob.detach()
            actions.append(kept)
            log_probs.append(kept_log_prob)
            if m + 1 < self.plan_length:
                through = self.gradient_through_model and torch.is_grad_enabled()
                with torch.set_grad_enabled(through):
                    following, _, terminated = self.dynamics.step(observation, action)  # Eq. 3
                if self.mask_plan:
                    alive = alive & ~terminated
                # A terminal state may be anything, even infinite: a masked plan stays before it.
                observation = torch.where(alive.unsqueeze(-1), following, observation)
        return Plan(torch.stack(actions, 1), torch.stack(log_probs, 1).sum(1))  # Eq. 4

    def actor_loss(
        self, observation: Tensor, differentiated: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Eq. 52-53 on real observations [B, S], and log pi^k [B] of the plans."""
        plan = self.sample_plan(observation, differentiated)
        loss = soft_actor_loss(observation, plan, self.critic, self.temperature())
        return loss, plan.log_prob
