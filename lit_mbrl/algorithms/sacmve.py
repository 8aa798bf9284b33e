"""SAC-MVE: soft actor-critic with model-based value expansion (paper 000, Algorithm 3).

MVE is Feinberg et al., arXiv 1803.00101. The lines of Algorithm 3:
  l.1   explore for U steps                                  the data module's warm-up
  l.3   train p_theta on D_env, Eq. 10                       `fit_dynamics`, by the callback
  l.5   take an action with pi, add to D_env                 the data module
  l.6   real transitions, and rollouts of k steps from them  `expand`
  l.7   Q on both by MVE's error                             `Critic.loss`
  l.8   the target critics track the critics                 `training_step`
  l.9   pi on the real states                                `training_step`

The algorithm's k is `horizon` here, MVE's H. As in MVE, all states of a path have targets that end
in the same value (its TD-k trick), so the critics learn on the states that the expansion visits;
with H = 0 it is SAC. Rollouts begin in the transition's next state and live as long as an update. A
predicted termination ends a path: its states behind it are in no loss. Of each path the elites make
one sample, another elite at each step. The policy moves after each update of the critics, as SAC's
does: more updates a step are more of both (Table 1, for MPPVE: 20 and 1).

SAC-VE, a baseline of LOOP (paper 003, section 6.1: value expansion "similar to MBVE but uses SAC"),
is this algorithm by another name, and conf/sacmve.yaml is its configuration.
"""

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from lit_mbrl.algorithms.agent import require_valid
from lit_mbrl.algorithms.soft_actor_critic import SoftActorCritic
from lit_mbrl.dynamics import Dynamics
from lit_mbrl.errors import require
from lit_mbrl.networks import Temperature
from lit_mbrl.objectives import Expansion, soft_expansion, unroll


class SACMVE(SoftActorCritic):
    """Soft actor-critic with model-based value expansion.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        horizon: H, imagined steps of a target.
        hidden_sizes: Widths of the actor's and the critics' layers.
        learning_rate: Adam's, for critics, actor and temperature.
        gamma: Discount of one step.
        target_rate: tau of the target critics.
        target_entropy: Entropy that the temperature is learned towards, in nats per step, of
            actions scaled to [-1, 1]; None keeps the initial temperature.
        initial_temperature: First alpha.
        dynamics_hidden_sizes: Widths of the layers of the ensemble's networks.
        dynamics_weight_decay: L2 coefficient of each of their layers, the output's last.
        dynamics_networks: Networks of the ensemble.
        dynamics_elites: How many of them predict.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    fixed_shapes = False  # the states that are left of a path before its end

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
        dynamics_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        dynamics_networks: int = 7,
        dynamics_elites: int = 5,
        fit_patience: int = 5,
    ):
        super().__init__()
        require(horizon >= 0, "model.horizon", horizon, "an integer >= 0; 0 is SAC")
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.horizon, self.learning_rate = horizon, learning_rate
        self.gamma, self.target_rate = gamma, target_rate
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

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        for transitions in batch.unbind(0):
            expansion = self.expand(transitions)  # l.6
            critic_loss, value = self.step("critic", self.critic.loss, *expansion)  # l.7
            self.track(self.target_critic, self.critic, self.target_rate)  # l.8
            actor_loss, log_prob = self.improve_policy(transitions["observation"])  # l.9
        self.log_update(critic_loss, value, actor_loss, log_prob)

    @torch.no_grad()
    def expand(self, transitions: TensorDict) -> Expansion:
        """The real transitions [B] and the rollouts from them, with their targets."""
        following, alpha = transitions["next"], self.temperature()
        state, ended = following["observation"], following["terminated"]
        path = unroll(state, self.horizon, self.actor.sample, self.dynamics.step, ended)
        return soft_expansion(transitions, path, self.target_critic, alpha, self.gamma)
