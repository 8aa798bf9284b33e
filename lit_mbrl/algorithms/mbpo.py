"""MBPO: model-based policy optimization (Janner et al., arXiv 1906.08253).

Algorithm 2, as this collection's roles share it out:
  l.3     fit p_theta on D_env by maximum likelihood         `fit_dynamics`, by the callback
  l.5     take an action with pi, add to D_env               the data module
  l.6-8   k-step branched rollouts from D_env into D_model   `imagine`, by the callback
  l.9-10  G gradient updates on data of D_model              `learn`

As in the published code, and not in the pseudo-code: the rollouts are made right after each fit
and not at every step, a share of each batch (5%) is real, and the policy update is SAC's. Unlike
there, the rollout length follows its schedule step by step and not epoch by epoch (it grows up to
750 steps earlier), D_env has each step at once and not when its episode ends, and fits to fewer
than 5,000 transitions last longer (`PATIENT_UPDATES` in lit_mbrl/dynamics/fitting.py).
"""

from collections.abc import Sequence

from tensordict import TensorDict

from lit_mbrl.algorithms.agent import require_valid
from lit_mbrl.algorithms.soft_actor_critic import SoftActorCritic
from lit_mbrl.data import EnvironmentReplay
from lit_mbrl.dynamics import Dynamics
from lit_mbrl.imagination import branched_rollouts
from lit_mbrl.networks import Temperature


class MBPO(SoftActorCritic):
    """SAC on real and imagined transitions.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        hidden_sizes: Widths of the actor's and the critics' layers.
        learning_rate: Adam's, for critics, actor and temperature.
        gamma: Discount of one step.
        target_rate: tau of the target critics.
        target_entropy: Entropy that the temperature is learned towards, in nats per step, of
            actions scaled to [-1, 1]; None keeps the initial temperature.
        initial_temperature: First alpha.
        max_return: The most that a discounted return can be, b / (1 - gamma) for rewards of at
            most b >= 0; targets are then limited to it, see `soft_target`. None, as in the paper,
            limits nothing.
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
        hidden_sizes: Sequence[int] = (256, 256),
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        target_rate: float = 0.005,
        target_entropy: float | None = -1.0,
        initial_temperature: float = 1.0,
        max_return: float | None = None,
        dynamics_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        dynamics_networks: int = 7,
        dynamics_elites: int = 5,
        fit_patience: int = 6,
    ):
        super().__init__()
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.learning_rate, self.gamma, self.target_rate = learning_rate, gamma, target_rate
        self.limit_targets(max_return)
        self.target_entropy, self.fit_patience = target_entropy, fit_patience
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

    def imagine(self, replay: EnvironmentReplay, rollouts: int) -> TensorDict:  # l.6-8
        """Windows [M] imagined from `rollouts` real states."""
        segments = replay.sample_segments(rollouts)
        return branched_rollouts(segments, self.rollout_length, self.act, self.dynamics.step)

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        self.log_update(*self.compiler.capture("the updates", self.learn, batch))  # l.9-10
