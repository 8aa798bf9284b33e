"""S2VG: soft stochastic value gradients (paper 002, Algorithm 1).

  1.  one gradient step on f and r^, Eq. 6, on real data     `training_step`
  2.  take an action with pi, add to D                       the data module
  3.  m times: Q towards the expanded value, Eq. 7; V, Eq. 8;
      pi up the soft Bellman equation through the model,
      Eq. 11; the target of V by Polyak averaging            `training_step`

m is the number of updates of a batch, `data.updates_per_step`. A round of 3. has real rows of its
own; D_img is what `expand` makes of them and lives as long as its round.

What the paper leaves open, and what is done here; the authors' code (S2VG-anonymous1/S2VG, of
HalfCheetah with H = 1) does some of it otherwise:
  - How often 1. is done between two environment steps: once for each of the m batches. (The code:
    within each round and once more; for the first 11,000 steps it learns the model alone, with one
    batch of 100 a step.)
  - Eq. 6 is the expectation over the noise of the sampled prediction's squared error, and it is
    taken in closed form, (mu - y)^2 + sigma^2: the same gradient without the noise of the noise. It
    drives sigma to nothing, as the letter of Eq. 6 does; a likelihood would keep it.
    (The code takes a sample, and the mean over dimensions.)
  - f predicts s' - s, not s': the same function, begun near the identity.
  - The entropies of the imagined actions are in no term of Eq. 7, though Eq. 4-5 would have them
    there; the letter is kept. With H = 1 there are none.
  - Eq. 7 ends where an episode does: at a real termination, or where the task's termination
    function finds one in an imagined state. Eq. 11 does not ask whether s' is terminal: V' there is
    the value of a state beyond the edge, and with zero in its place no gradient would lead away.
    (The code masks V' by the termination of the real step.)
  - V' in Eq. 11 is V_psi itself; its target is used in Eq. 7 alone.
  - The factor 1/2, missing in Eq. 7, is that of Eq. 8. Each of the two Q has its own square.
  - In a round Q moves first, then V by the new Q, then pi. (The code: the model, pi, then Q and V.)
  - Rows behind the end of a path are left out of Eq. 7's mean, not counted as zero.
  - Discount and Polyak rate are SAC's; the batch size is 128 on the pendulums, else SAC's 256.
  - The actor's gradient is clipped at a norm, which is reported.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.algorithms.agent import Agent, adam, require_valid
from lit_mbrl.envs import LEARNED, resolve_termination
from lit_mbrl.errors import require
from lit_mbrl.networks import Actor, Critic, GaussianMLP, Temperature, Value
from lit_mbrl.objectives import Expansion, squared_error, td_k_targets, unroll


class S2VG(Agent):
    """Soft stochastic value gradients.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        horizon: H, steps of the value expansion (Eq. 7), the real one included; 1 imagines none.
        hidden_sizes: Widths of the layers of actor, Q and V.
        learning_rate: Adam's, for the actor.
        value_learning_rate: Adam's, for Q and V.
        gamma: Discount of one step.
        target_rate: Polyak rate of the target of V.
        alpha: Weight of the entropy, of actions scaled to [-1, 1].
        actor_max_norm: Norm at which the actor's gradient is clipped.
        model_hidden_sizes: Widths of the layers of f and r^.
        model_learning_rate: Adam's, for f and r^.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        horizon: int = 1,
        hidden_sizes: Sequence[int] = (256, 256),
        learning_rate: float = 3e-4,
        value_learning_rate: float = 3e-4,
        gamma: float = 0.99,
        target_rate: float = 0.005,
        alpha: float = 0.1,
        actor_max_norm: float = 100.0,
        model_hidden_sizes: Sequence[int] = (32, 16),
        model_learning_rate: float = 3e-4,
    ):
        super().__init__()
        require(horizon >= 1, "model.horizon", horizon, "an integer of at least 1")
        require(alpha >= 0, "model.alpha", alpha, "a number >= 0")
        for name, rate in {"value": value_learning_rate, "model": model_learning_rate}.items():
            require(rate > 0, f"model.{name}_learning_rate", rate, "a number > 0")
        sizes = list(model_hidden_sizes)
        valid = len(sizes) >= 1 and min(sizes) >= 1
        require(valid, "model.model_hidden_sizes", sizes, "a list of integers >= 1")
        if horizon > 1:
            allowed = "'never' or the dotted path of a function where model.horizon is above 1"
            require(termination != LEARNED, "data.termination", termination, allowed)
        self.termination = None if termination == LEARNED else resolve_termination(termination)
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.horizon, self.gamma, self.target_rate = horizon, gamma, target_rate
        self.fixed_shapes = horizon == 1  # beyond, the states left of a path before its end
        self.learning_rate, self.value_learning_rate = learning_rate, value_learning_rate
        self.model_learning_rate, self.actor_max_norm = model_learning_rate, actor_max_norm
        inputs = observation_size + action_size
        self.transition = GaussianMLP(inputs, observation_size, sizes)  # f
        self.reward = GaussianMLP(inputs, 1, sizes)  # r^
        self.actor = Actor(observation_size, action_size, hidden_sizes)
        self.critic = Critic(observation_size, action_size, 1, hidden_sizes, critics=2)
        self.value = Value(observation_size, hidden_sizes)
        self.target_value = deepcopy(self.value).requires_grad_(False)
        self.temperature = Temperature(alpha, learned=False)

    def named_optimizers(self) -> dict[str, Optimizer]:
        return {
            **adam(self.model_learning_rate, transition=self.transition, reward=self.reward),
            **adam(self.value_learning_rate, critic=self.critic, value=self.value),
            **adam(self.learning_rate, actor=self.actor),
        }

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        for transitions in batch.unbind(0):  # 1.
            (transition_loss,) = self.step("transition", self.transition_loss, transitions)
            (reward_loss,) = self.step("reward", self.reward_loss, transitions)
        for transitions in batch.unbind(0):  # 3.
            observation = transitions["observation"]
            critic_loss, value = self.step("critic", self.critic.loss, *self.expand(transitions))
            self.step("value", self.value_loss, observation)
            actor_loss, log_prob = self.step(
                "actor", self.actor_loss, observation, max_norm=self.actor_max_norm
            )
            self.track(self.target_value, self.value, self.target_rate)
        self.log_step(
            critic_loss=critic_loss,
            critic_value=value,
            actor_loss=actor_loss,
            actor_entropy=-log_prob.mean(),
            actor_gradient_norm=self.gradient_norms["actor"],
            temperature=self.temperature(),
            dynamics_loss=transition_loss,
            dynamics_reward_loss=reward_loss,
        )

    def predict(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """s' [B, S] = f(s, a, zeta) and r^ [B] for s [B, S] and a [B, A], reparameterised."""
        inputs = torch.cat([observation, action], -1)
        following = observation + self.transition.sample(inputs)
        return following, self.reward.sample(inputs).squeeze(-1)

    def imagine_step(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`predict`, and whether the episode ends there [B], where a function says so."""
        assert self.termination is not None
        following, reward = self.predict(observation, action)
        return following, reward, self.termination(observation, action, following)

    def transition_loss(self, transitions: TensorDict) -> Tensor:
        """Eq. 6 of f, on real transitions [B]."""
        observation, action = transitions["observation"], transitions["action"][:, 0]
        difference = transitions["next", "observation"] - observation
        mean, std = self.transition(torch.cat([observation, action], -1))
        return _expected_square(mean, std, difference)

    def reward_loss(self, transitions: TensorDict) -> Tensor:
        """Eq. 6 of r^, on real transitions [B]."""
        observation, action = transitions["observation"], transitions["action"][:, 0]
        mean, std = self.reward(torch.cat([observation, action], -1))
        return _expected_square(mean, std, transitions["reward"])

    @torch.no_grad()
    def expand(self, transitions: TensorDict) -> Expansion:
        """D_img and the targets of Eq. 7: H steps from real transitions [B], the first one real."""
        following = transitions["next"]
        path = unroll(
            following["observation"],
            self.horizon - 1,
            self.actor.sample,
            self.imagine_step,
            following["terminated"],
        )
        target = td_k_targets(
            torch.cat([transitions["reward"], path.reward], 1),
            torch.zeros_like(path.reward),
            path.ended,
            self.target_value(path.observation[:, -1]),
            self.gamma,
        )
        observation = torch.cat([transitions["observation"].unsqueeze(1), path.observation], 1)
        action = torch.cat([transitions["action"], path.action], 1)
        begun = torch.cat([torch.zeros_like(path.ended[:, :1]), path.ended], 1)
        kept = ~begun[:, :-1]
        return Expansion(observation[:, :-1][kept], action[:, :-1][kept].unsqueeze(1), target[kept])

    def value_loss(self, observation: Tensor) -> Tensor:
        """Eq. 8 on real observations [B, S]."""
        with torch.no_grad():
            action, log_prob = self.actor.sample(observation)
            values = self.critic(observation, action.unsqueeze(1)).amin(0)
            target = values - self.temperature() * log_prob
        return squared_error(self.value(observation).unsqueeze(0), target)

    def actor_loss(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Minus Eq. 10 on real observations [B, S], whose gradient is Eq. 11; and log pi [B]."""
        action, log_prob = self.actor.sample(observation)
        following, reward = self.predict(observation, action)
        entropy = -self.temperature() * log_prob
        return -(reward + entropy + self.gamma * self.value(following)).mean(), log_prob


def _expected_square(mean: Tensor, std: Tensor, target: Tensor) -> Tensor:
    """1/2 E[(mu + sigma zeta - y)^2] over zeta ~ N(0, 1), mean over the batch, sum over parts."""
    return 0.5 * ((mean - target).square() + std.square()).sum(-1).mean()
