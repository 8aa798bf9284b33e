"""SAC-MPPVE: plan values and planning policy improvement on real data alone (paper 000, Alg. 2).

  l.1   explore for U steps                                  the data module's warm-up
  l.3   train p_theta on D_env, Eq. 10                       `fit_dynamics`, by the callback
  l.5   take an action with pi, add to D_env                 the data module
  l.6   windows of k steps from D_env                        the data module
  l.7   Q_psi by Eq. 15, in the soft form Eq. 48-51          `critic_loss`
  l.8   the target critics track the critics                 `training_step`
  l.9   pi by Eq. 18, in the soft form Eq. 54                `actor_loss`

MPPVE's ablation: the model makes plans and no data. What the paper leaves open is as in `MPPVE`:
two critics and their minimum, plans that are zero behind a predicted termination, a target entropy
of k times that of a step, a clipped gradient, which does not pass through p_theta. Another than
MPPVE's is the rhythm, SAC's: the policy moves after each critic update.
"""

from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.algorithms.agent import require_valid
from lit_mbrl.algorithms.soft_actor_critic import SoftActorCritic
from lit_mbrl.dynamics import Dynamics
from lit_mbrl.errors import require
from lit_mbrl.networks import Temperature
from lit_mbrl.objectives import Plan, unroll


class SACMPPVE(SoftActorCritic):
    """Multi-step plan values on real windows, and planning policy improvement.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        plan_length: k, steps of a plan.
        hidden_sizes: Widths of the actor's and the critics' layers.
        learning_rate: Adam's, for critics, actor and temperature.
        gamma: Discount of one step.
        target_rate: tau of the target critics (l.8).
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
        plan_length: int = 3,
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
        require(plan_length >= 1, "model.plan_length", plan_length, "an integer of at least 1")
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.plan_length, self.learning_rate = plan_length, learning_rate
        self.gamma, self.target_rate = gamma, target_rate
        self.target_entropy = None if target_entropy is None else target_entropy * plan_length
        self.actor_max_norm, self.fit_patience = actor_max_norm, fit_patience
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
        self.make_actor_critic(*sizes, temperature, plan_length)

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        for windows in batch.unbind(0):  # l.6
            critic_loss, value = self.step("critic", self.critic_loss, windows)  # l.7
            self.track(self.target_critic, self.critic, self.target_rate)  # l.8
            actor_loss, log_prob = self.improve_policy(
                windows["observation"], max_norm=self.actor_max_norm
            )  # l.9
        self.log_update(critic_loss, value, actor_loss, log_prob)

    def sample_plan(self, observation: Tensor) -> Plan:
        """Plans of k steps for observations [B, S] (Eq. 1-4), the model's states held fixed."""
        step = torch.no_grad()(self.dynamics.step)
        path = unroll(observation, self.plan_length - 1, self.actor.sample, step)
        alive = ~path.ended
        return Plan(path.action * alive.unsqueeze(-1), (path.log_prob * alive).sum(1))
