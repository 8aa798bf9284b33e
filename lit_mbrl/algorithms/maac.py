"""MAAC: model-augmented actor-critic (Clavera et al., arXiv 2005.08068; Algorithm 1 in paper 004).

  l.3     take an action with pi, add to D_env              the data module
  l.4-6   phi up the likelihood of D_env                    `fit_dynamics`, by the callback
  l.7     trajectories of f^ into D_model                   `imagine`, by the callback
  l.8     D = D_model and D_env                             the data module: `data.real_ratio`
  l.10    theta up J_pi on data of D                        `actor_loss`
  l.11    psi down J_Q on data of D                         `critic_loss`

  J_pi = E[sum_{t<H} gamma^t r(s^_t, a_t) + gamma^H Q(s^_H, a_H)] + beta H(pi)

is differentiated through the policy, the networks of the ensemble and Q; each step of a path is
one elite's, drawn at random.

What the pseudo-code leaves open, and what is done here:
  - The entropy is SAC's: each action of the path adds -alpha log pi, discounted as its reward, and
    Q holds that of the actions after its own. With H = 0 the policy update is SAC's. beta is alpha,
    which is learned. The published code counts the first action's alone.
  - Q is the smaller one of two, in J_pi and in the targets, which have their own slow copies.
  - J_Q is Algorithm 1's, with one step; the arXiv paper expands its targets as STEVE does.
  - As in MBPO the model is fitted at intervals, and its trajectories branch off real states.
  - A path that the model says will terminate ends in Q of the action before, as in `MPDP`: its last
    reward and the 0 behind it have no gradient that leads away from there, Q has one. The published
    code (iclavera/meta-mb) follows all paths on; of a step behind a terminated one it leaves out
    the reward or the last Q, of later steps nothing.
  - The last Q is of one action; the code's is a mean over five. Its H counts one reward less: its 3
    are the 4 rewards of H = 4 here. Its rewards are known functions, its targets move once a step.
  - The gradient's norm grows with H (docs/value_gradients.md); it is logged, and clipped.
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
from lit_mbrl.objectives import discounted_return, unroll


class MAAC(SoftActorCritic):
    """Model-augmented actor-critic: a policy gradient through H steps of the model.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        horizon: H, steps of the model in the policy's objective.
        hidden_sizes: Widths of the actor's and the critics' layers.
        learning_rate: Adam's, for critics, actor and temperature.
        gamma: Discount of one step.
        target_rate: tau of the target critics.
        target_entropy: Entropy that the temperature is learned towards, in nats per step, of
            actions scaled to [-1, 1]; None keeps the initial temperature.
        initial_temperature: First alpha.
        actor_max_norm: Norm at which the actor's gradient is clipped.
        dynamics_hidden_sizes: Widths of the layers of the ensemble's networks.
        dynamics_weight_decay: L2 coefficient of each of their layers, the output's last.
        dynamics_networks: Networks of the ensemble.
        dynamics_elites: How many of them predict.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        horizon: int = 3,
        hidden_sizes: Sequence[int] = (256, 256),
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        target_rate: float = 0.005,
        target_entropy: float | None = -1.0,
        initial_temperature: float = 1.0,
        actor_max_norm: float = 10.0,
        dynamics_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        dynamics_networks: int = 7,
        dynamics_elites: int = 5,
        fit_patience: int = 5,
    ):
        super().__init__()
        require(horizon >= 0, "model.horizon", horizon, "an integer >= 0; 0 is SAC's improvement")
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.horizon, self.learning_rate = horizon, learning_rate
        self.gamma, self.target_rate = gamma, target_rate
        self.target_entropy, self.actor_max_norm = target_entropy, actor_max_norm
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
        temperature = Temperature(initial_temperature, learned=target_entropy is not None)
        self.make_actor_critic(observation_size, action_size, hidden_sizes, temperature)

    def imagine(self, replay: EnvironmentReplay, rollouts: int) -> TensorDict:  # l.7
        """Windows [M] imagined from `rollouts` real states."""
        segments = replay.sample_segments(rollouts)
        return branched_rollouts(segments, self.rollout_length, self.act, self.dynamics.step)

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        for transitions in batch.unbind(0):
            actor_loss, log_prob = self.improve_policy(
                transitions["observation"], max_norm=self.actor_max_norm
            )  # l.10
            critic_loss, value = self.step("critic", self.critic_loss, transitions)  # l.11
            self.track(self.target_critic, self.critic, self.target_rate)
        self.log_update(
            critic_loss,
            value,
            actor_loss,
            log_prob,
            actor_gradient_norm=self.gradient_norms["actor"],
        )

    def actor_loss(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Minus J_pi at observations [B, S], and the log-probabilities [B] of the first actions."""
        alpha = self.temperature()
        path = unroll(observation, self.horizon, self.actor.sample, self.dynamics.step)
        entropy = -alpha * path.log_prob
        last = (~path.ended).sum(1) - 1  # the step of a path whose action Q is asked about
        rows, steps = (torch.arange(n, device=last.device) for n in path.ended.shape)
        before = steps[:-1] < last.unsqueeze(1)
        gain = torch.where(before, path.reward + entropy[:, :-1], 0.0)  # behind, anything may be
        end = path.observation[rows, last], path.action[rows, last].unsqueeze(1)
        end_value = self.critic(*end).amin(0) + entropy[rows, last]
        value = discounted_return(gain, self.gamma) + self.gamma**last * end_value
        return -value.mean(), path.log_prob[:, 0]
