"""LOOP-SARSA: lookahead to the value of the data's own policy (paper 003, 6.1; a baseline of LOOP).

As LOOP, but the value function is learned for no actor: it evaluates the policy that filled D_env,
a mixture of all that acted so far, as MBOP does (arXiv 2008.05556):
  1. critics   towards r + gamma min_i Q_i^-(s', a') of consecutive real steps (s, a, r, s', a')
  2. target critics track the critics                                          `training_step`
and at every step a plan is made                                               `plan`
  score = sum_{t<H-1} gamma^t r_t + gamma^{H-1} min_i Q_i(s_{H-1}, a_{H-1})

The paper says no more of it. Where Eq. 3 has V(s_H) stands Q with the plan's last action, as in the
published code: there is no actor to act at s_H. There is none for ARC's prior either, so CEM plans.
As LOOP, and unlike PETS-restricted, it collects with a sample of the last elites and is evaluated
with their mean.
The published code has these critics, and an actor that is improved on them for ARC's prior; it is
left out, because its value is not that of the data's policy.
"""

from collections.abc import Sequence
from copy import deepcopy

from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.algorithms.agent import Agent, adam, require_valid
from lit_mbrl.dynamics import Dynamics
from lit_mbrl.networks import Critic
from lit_mbrl.objectives import sarsa_target
from lit_mbrl.planning import (
    ImaginedReturn,
    Planner,
    PlanningBehaviour,
    Problem,
    Sampling,
    Solution,
    Start,
    TerminalValue,
    require_no_policy,
)


class LOOPSARSA(Agent):
    """H-step lookahead with the value of the policy that collected the data.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        planner: What looks ahead; one that needs no policy, such as CEM. Its `horizon` is H.
        sampling: How the plans go through the ensemble, see `lit_mbrl.planning.scoring`.
        particles: Of each plan.
        hidden_sizes: Widths of the critics' layers.
        learning_rate: Adam's, for the critics.
        gamma: Discount of one step.
        target_rate: tau of the target critics.
        dynamics_hidden_sizes: Widths of the layers of the ensemble's networks.
        dynamics_weight_decay: L2 coefficient of each of their layers, the output's last.
        dynamics_networks: Networks of the ensemble.
        dynamics_elites: How many of them predict.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    plan_length = 2  # windows of two steps hold s, a, r, s', a'
    needs_paths = True

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        planner: Planner,
        sampling: Sampling = "ts1",
        particles: int = 4,
        hidden_sizes: Sequence[int] = (256, 256),
        learning_rate: float = 1e-3,
        gamma: float = 0.99,
        target_rate: float = 0.005,
        dynamics_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        dynamics_weight_decay: Sequence[float] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        dynamics_networks: int = 7,
        dynamics_elites: int = 5,
        fit_patience: int = 6,
    ):
        super().__init__()
        require_no_policy(planner)
        self.save_hyperparameters()
        require_valid(self.hparams)
        self.planner, self.fit_patience = planner, fit_patience
        self.learning_rate, self.gamma, self.target_rate = learning_rate, gamma, target_rate
        self.dynamics = Dynamics(
            observation_size,
            action_size,
            termination,
            dynamics_hidden_sizes,
            dynamics_weight_decay,
            dynamics_networks,
            dynamics_elites,
        )
        self.critic = Critic(observation_size, action_size, 1, hidden_sizes, critics=2)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        terminal = TerminalValue(self.value, tail=1)
        score = ImaginedReturn(
            self.dynamics, sampling, particles, gamma, terminal=terminal, autocast=self.autocast
        )
        self.problem = Problem(score, action_size)

    def named_optimizers(self) -> dict[str, Optimizer]:
        return {
            "dynamics": self.dynamics.optimizer(),
            **adam(self.learning_rate, critic=self.critic),
        }

    def act(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        solution = self.plan(observation)
        return (solution.action if deterministic else solution.sample)[:, 0]

    def behaviour(
        self, copies: int, deterministic: bool = False, collects: bool = False
    ) -> PlanningBehaviour:
        return PlanningBehaviour(self.plan, copies, explore=not deterministic)

    def plan(self, observation: Tensor, start: Start | None = None) -> Solution:
        """Plans for observations [B, S], from what is left of earlier ones."""
        return self.planner(self.problem, observation, start)

    def value(self, observation: Tensor, action: Tensor) -> Tensor:
        """min_i Q_i(s, a) [R] for observations [R, S] and actions [R, 1, A]."""
        return self.critic(observation, action).amin(0)

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        for windows in batch.unbind(0):
            critic_loss, value = self.step("critic", self.critic_loss, windows)  # 1.
            self.track(self.target_critic, self.critic, self.target_rate)  # 2.
        self.log_step(critic_loss=critic_loss, critic_value=value)

    def critic_loss(self, windows: TensorDict) -> tuple[Tensor, Tensor]:
        """The squared error of SARSA on windows [B] of two steps, and the critics' mean value."""
        target = sarsa_target(windows, self.target_critic, self.gamma)
        return self.critic.loss(windows["observation"], windows["action"][:, :1], target)
