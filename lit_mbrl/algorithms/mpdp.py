"""MPDP: model-based planning distilled to policy (Li et al., paper 001, Algorithms 1 and 2).

Algorithm 2:
  l.3     take an action with pi_0, add to D                 the data module
  l.4     train p_1..p_K on D                                `fit_dynamics`, by the callback
  l.5     a batch of D                                       the data module: real rows alone
  l.6     Q as in SAC, of pi_0                               `critic_loss`
  l.7     pi_0..pi_{H_max-1} by Algorithm 1                  `actor_loss`

pi_h acts at the h-th step of a plan. They are learned together, by the gradient of Eq. 9 along the
plan, and pi_0 alone acts: it is `actor`, the others are `later_actors`.

What the paper leaves open, or writes in two ways, and what is done here:
  - The last value is discounted by gamma^H, as in the proof of Theorem 1 and in Algorithm 1, l.7.
    Without it, as Eq. 6 and 9 are written, J^H(pi_old) is not V of pi_old, and the proofs fail.
  - Algorithm 1 read by the letter drops the reward of the step at which a plan stops (l.8 comes
    before l.10), and leaves a plan of H_max steps without a value at its end. Eq. 6 has both.
  - A plan ends in Q(s, a) of its last action, which is r + gamma V(s') by Eq. 2. So there is no V
    to learn, H = 1 is SAC's improvement (Eq. 4), as the paper says, and the step for which the
    model is not to be trusted is not taken. Its u is not charged, as in Algorithm 1. Where s' is
    terminal, r + 0 would have no gradient that leads away; Q has one.
  - p_-i in Eq. 8 is the Gaussian with the moments of the other networks' mixture, over all K
    networks and the next state (`one_vs_rest`). The divergence to the mixture has no closed form.
  - Eq. 8 sums over networks and dimensions, which makes 20 to 50 on Hopper-v5; u is its mean here,
    so that it means the same in tasks of any size and beta's 0.2 to 0.7 weigh it against rewards.
  - The threshold u_T = -5 cannot be one for Eq. 8, which is never negative: every plan would stop
    at once, and Figure 2 has them grow from 2 to 12 steps. It is compared with log u here, which
    may be negative. A plan stops where log u >= u_T, since the text stops it where the error is
    large.
  - The number -5 belongs to the authors' ensemble. In this one the networks are as far apart as
    their deviations: 90% of log u lie from -1.4 to -0.4 on Hopper-v5 after 12,000 steps (7 networks
    of 4x200) and from -1.0 to 0.6 on InvertedPendulum-v5 after 500 (5 of 2x100), and -5 would stop
    every plan at once. The default is -0.5; conf/mpdp.yaml has 1.
  - The networks that predict a plan's states are the best on the holdout (5 of 7 on Hopper-v5), as
    in the other algorithms; Algorithm 1 draws from all. u is always of all.
  - Two critics and their minimum, with slow targets. alpha is fixed.
  - The gradient's norm is logged and clipped.
"""

from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_mbrl.algorithms.agent import adam, require_valid
from lit_mbrl.algorithms.soft_actor_critic import SoftActorCritic
from lit_mbrl.dynamics import Dynamics
from lit_mbrl.errors import require
from lit_mbrl.networks import Actor, Temperature
from lit_mbrl.objectives import one_vs_rest


class MPDP(SoftActorCritic):
    """Model-based planning distilled to policy.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        max_horizon: H_max, most steps of a plan.
        threshold: u_T, the logarithm of the model error u at which a plan stops.
        beta: Weight of the model error in the objective.
        alpha: Weight of the entropy, of actions scaled to [-1, 1].
        hidden_sizes: Widths of the actors' and the critics' layers.
        learning_rate: Adam's, for critics and actors.
        gamma: Discount of one step.
        target_rate: tau of the target critics.
        actor_max_norm: Norm at which the actors' gradient, of all together, is clipped.
        dynamics_hidden_sizes: Widths of the layers of the ensemble's networks.
        dynamics_weight_decay: L2 coefficient of each of their layers, the output's last.
        dynamics_networks: K, networks of the ensemble.
        dynamics_elites: How many of them predict.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    fixed_shapes = False  # the plans that have not stopped

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        max_horizon: int = 25,
        threshold: float = -0.5,
        beta: float = 0.5,
        alpha: float = 0.2,
        hidden_sizes: Sequence[int] = (256, 256),
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        target_rate: float = 0.005,
        actor_max_norm: float = 10.0,
        dynamics_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        dynamics_networks: int = 7,
        dynamics_elites: int = 5,
        fit_patience: int = 5,
    ):
        super().__init__()
        require(max_horizon >= 1, "model.max_horizon", max_horizon, "an integer of at least 1")
        require(beta >= 0, "model.beta", beta, "a number >= 0")
        require(alpha >= 0, "model.alpha", alpha, "a number >= 0")
        networks = dynamics_networks
        require(networks >= 2, "model.dynamics_networks", networks, "an integer of at least 2")
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.max_horizon, self.threshold, self.beta = max_horizon, threshold, beta
        self.learning_rate, self.gamma, self.target_rate = learning_rate, gamma, target_rate
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
        temperature = Temperature(alpha, learned=False)
        self.make_actor_critic(observation_size, action_size, hidden_sizes, temperature)
        self.later_actors = nn.ModuleList(
            Actor(observation_size, action_size, hidden_sizes) for _ in range(max_horizon - 1)
        )

    def named_optimizers(self) -> dict[str, Optimizer]:
        actors = nn.ModuleList([self.actor, *self.later_actors])
        return {
            "dynamics": self.dynamics.optimizer(),
            **adam(self.learning_rate, critic=self.critic, actor=actors),
        }

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        for transitions in batch.unbind(0):  # Alg. 2, l.5
            critic_loss, value = self.step("critic", self.critic_loss, transitions)  # l.6, Eq. 2-3
            self.track(self.target_critic, self.critic, self.target_rate)
            actor_loss, log_prob, length, error = self.step(
                "actor", self.actor_loss, transitions["observation"], max_norm=self.actor_max_norm
            )  # l.7
        self.log_step(
            critic_loss=critic_loss,
            critic_value=value,
            actor_loss=actor_loss,
            actor_entropy=-log_prob.mean(),
            actor_gradient_norm=self.gradient_norms["actor"],
            rollout_adaptive_length=length,
            rollout_model_error=error,
        )

    def actor_loss(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Algorithm 1 at observations [B, S].

        Returns:
            Minus the mean of J; the log-probabilities [B] of pi_0's actions; the mean length of the
            plans; the mean of log u over all steps that it was asked for.
        """
        alpha, state = self.temperature(), observation
        objective = torch.zeros((), device=state.device)
        errors, steps, first_log_prob = [], 0, torch.empty(0)
        for t, actor in enumerate([self.actor, *self.later_actors]):  # l.3
            action, log_prob = actor.sample(state)  # l.4
            steps += len(state)
            if t == 0:
                first_log_prob = log_prob
            stops = torch.ones_like(log_prob, dtype=torch.bool)
            entropy = -alpha * log_prob
            if t + 1 < self.max_horizon:
                following, reward, terminated = self.dynamics.step(state, action)  # l.5
                error = self.model_error(state, action)
                errors.append(error.detach())
                stops = ~(error < self.threshold) | terminated  # l.6; an error of nan is large
                # Chosen before exp: of a plan that stops, exp may overflow, and 0 times its
                # derivative would be undefined.
                charge = self.beta * error[~stops].exp()
                gain = (reward + entropy)[~stops] - charge  # l.10, Eq. 10
                objective = objective + self.gamma**t * gain.sum()
            last, last_action = state[stops], action[stops].unsqueeze(1)
            value = self.critic(last, last_action).amin(0) + entropy[stops]
            objective = objective + self.gamma**t * value.sum()  # l.7
            if stops.all():
                break
            state = following[~stops]
        rows = len(observation)
        error = torch.cat(errors).mean() if errors else torch.zeros_like(objective)
        return -objective / rows, first_log_prob, torch.tensor(steps / rows), error

    def model_error(self, observation: Tensor, action: Tensor) -> Tensor:
        """log u(s, a) [B] for s [B, S] and a [B, A]: see above."""
        networks = self.dynamics.ensemble.networks
        inputs = torch.cat([observation, action], -1).expand(networks, -1, -1)
        mean, log_var = (part[..., :-1] for part in self.dynamics(inputs))
        divergence = one_vs_rest(mean, log_var) / (networks * mean.shape[-1])
        return divergence.clamp(min=1e-6).log()
