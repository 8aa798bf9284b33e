"""LOOP: learning off-policy with online planning (Sikchi et al., paper 003), with SAC.

The policy that acts, in the task and in evaluations, looks H steps ahead:
  Eq. 3   score = sum_{t<H} gamma^t r_t + gamma^H V(s_H) in the model       `score`
  Eq. 8   the plan, by ARC around the actor's plans                         `plan`
What it looks ahead to is learned by SAC, as if the actor had acted:
  1. critics, 2. actor, 3. temperature, 4. targets, on real transitions     `training_step`
and the model by maximum likelihood every so often                          `fit_dynamics`

V(s) = min_i Q_i(s, pi(s)) with the actor's mean action; the paper leaves open how V comes of Q. To
collect, one of the last candidates is taken, drawn by its weight in Eq. 8, and to evaluate their
mean, as in the published code. With another planner in ARC's place it is LOOP without ARC, such as
CEM in conf/loop_cem.yaml. `lit_mbrl.planning.arc` lists ARC's own departures.

The published code scores otherwise than Eq. 3 (`published_score`): the sum of the first H - 1
rewards, undiscounted, and Q_1(s_{H-1}, a_{H-1}), which it leaves out where a_{H-1} terminates. Each
of its elites takes 4 particles through the horizon (TS-infinity with 20); the configuration of
InvertedPendulum-v5 affords 4 in all. It updates 50 times every 50 steps, here it is at
every step. Its model is fitted during the random steps too, to all of D_env without bootstrap,
keeps the weights of the last epoch and not of the best, and does not learn the bounds of its
variances; here it is MBPO's. It evaluates the actor alone too; `lit_mbrl.export` takes that one
along.
"""

from collections.abc import Sequence
from functools import partial

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.algorithms.agent import require_valid
from lit_mbrl.algorithms.soft_actor_critic import SoftActorCritic
from lit_mbrl.dynamics import Dynamics
from lit_mbrl.networks import Temperature
from lit_mbrl.planning import (
    ImaginedReturn,
    Planner,
    PlanningBehaviour,
    Problem,
    Sampling,
    Solution,
    Start,
    TerminalValue,
    policy_plans,
)

RECENT = 100
"""Steps after which the logged divergence is no plain mean, but forgets at the rate 1 / RECENT."""


class LOOP(SoftActorCritic):
    """H-step lookahead with the value function of SAC.

    Args:
        observation_size: S; set from the task.
        action_size: A; set from the task.
        termination: Dotted path of the termination function; set from the task.
        planner: What looks ahead; ARC in the paper. Its `horizon` is H.
        sampling: How the plans go through the ensemble, see `lit_mbrl.planning.scoring`.
        particles: Of each plan.
        published_score: Score plans as the published code does, and not by Eq. 3.
        hidden_sizes: Widths of the actor's and the critics' layers.
        learning_rate: Adam's, for critics, actor and temperature.
        gamma: Discount of one step.
        target_rate: tau of the target critics.
        target_entropy: Entropy that the temperature is learned towards, in nats per step, of
            actions scaled to [-1, 1]; None keeps the initial temperature. -A in the published code.
        initial_temperature: First alpha.
        dynamics_hidden_sizes: Widths of the layers of the ensemble's networks.
        dynamics_weight_decay: L2 coefficient of each of their layers, the output's last.
        dynamics_networks: Networks of the ensemble.
        dynamics_elites: How many of them predict.
        fit_patience: Epochs of a fit without improvement before it stops.
    """

    divergence: Tensor
    _newest_divergence: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        termination: str,
        planner: Planner,
        sampling: Sampling = "ts1",
        particles: int = 4,
        published_score: bool = False,
        hidden_sizes: Sequence[int] = (256, 256),
        learning_rate: float = 1e-3,
        gamma: float = 0.99,
        target_rate: float = 0.005,
        target_entropy: float | None = -1.0,
        initial_temperature: float = 1.0,
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
        self.planner = planner
        if published_score:
            discount, terminal = 1.0, TerminalValue(self.first_value, tail=1)
        else:
            discount, terminal = gamma, TerminalValue(self.value, tail=0)
        score = ImaginedReturn(
            self.dynamics, sampling, particles, discount, terminal=terminal, autocast=self.autocast
        )
        self.problem = Problem(score, action_size, self.propose)
        self.collecting = self.problem._replace(score=score.compiled(self.compiler))
        self.register_buffer("divergence", torch.zeros(()))
        # In place, as all that a captured plan writes.
        self.register_buffer("_newest_divergence", torch.zeros(()), persistent=False)

    def act(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        solution = self.plan(observation)
        return (solution.action if deterministic else solution.sample)[:, 0]

    def behaviour(
        self, copies: int, deterministic: bool = False, collects: bool = False
    ) -> PlanningBehaviour:
        captured = partial(self.compiler.capture, "the plan", self.collecting_plan)
        plan = captured if collects else self.plan
        return PlanningBehaviour(plan, copies, explore=not deterministic)

    def plan(self, observation: Tensor, start: Start | None = None) -> Solution:
        """Plans for observations [B, S], from what is left of earlier ones."""
        return self._plan(self.problem, observation, start)

    def collecting_plan(self, observation: Tensor, start: Start | None = None) -> Solution:
        """As `plan`, with the model's steps compiled once that is enabled."""
        return self._plan(self.collecting, observation, start)

    @torch.no_grad()
    def _plan(self, problem: Problem, observation: Tensor, start: Start | None) -> Solution:
        solution = self.planner(problem, observation, start)
        distance = (solution.action[:, 0] - self.actor.mode(observation)).norm(dim=-1)
        self._newest_divergence.copy_(distance.mean())  # Figure 4
        return solution

    def propose(self, observation: Tensor, plans: int, horizon: int) -> Tensor:
        """The actor's plans [B, N, H, A], the mean action at every state they lead to."""
        step = self.dynamics.step
        return policy_plans(self.actor.mode, step, observation, plans, horizon)

    def value(self, observation: Tensor, tail: Tensor) -> Tensor:
        """V(s) [R] of Eq. 3 for observations [R, S]; the tail is empty."""
        action = self.actor.mode(observation).unsqueeze(1)
        return self.critic(observation, action).amin(0)

    def first_value(self, observation: Tensor, tail: Tensor) -> Tensor:
        """Q_1(s, a) [R] for observations [R, S] and actions [R, 1, A]."""
        values: Tensor = self.critic(observation, tail)[0]
        return values

    def training_step(self, batch: TensorDict, batch_idx: int) -> None:
        learned = self.compiler.capture("the updates", self.learn, batch)
        # The last plan was made to take this step.
        self.divergence.lerp_(self._newest_divergence, 1 / min(self.env_steps, RECENT))
        self.log_update(*learned, actor_divergence=self.divergence)
