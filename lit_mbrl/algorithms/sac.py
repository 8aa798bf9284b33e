"""SAC: soft actor-critic (Haarnoja et al., arXiv 1812.05905), the model-free baseline.

Every gradient update of an environment step, on a batch of real transitions:
  1. critics   towards r + gamma (min_i Q_i^-(s', a') - alpha log pi(a'|s')),  a' ~ pi(.|s')  Eq. 5
  2. actor     down alpha log pi(a|s) - min_i Q_i(s, a),  a reparameterised                  Eq. 9
  3. alpha     towards the target entropy                                                    Eq. 18
  4. target critics track the critics
"""

from collections.abc import Sequence

from tensordict import TensorDict

from lit_mbrl.algorithms.agent import require_valid
from lit_mbrl.algorithms.soft_actor_critic import SoftActorCritic
from lit_mbrl.networks import Temperature


class SAC(SoftActorCritic):
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
        max_return: The most that a discounted return can be, b / (1 - gamma) for rewards of at
            most b >= 0; targets are then limited to it, see `soft_target`. None, as in the paper,
            limits nothing.
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
        max_return: float | None = None,
    ):
        super().__init__()
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.learning_rate, self.gamma, self.target_rate = learning_rate, gamma, target_rate
        self.limit_targets(max_return)
        self.target_entropy = target_entropy
        temperature = Temperature(initial_temperature, learned=target_entropy is not None)
        self.make_actor_critic(observation_size, action_size, hidden_sizes, temperature)

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        self.log_update(*self.compiler.capture("the updates", self.learn, batch))
