"""What all algorithms share: named optimizers, gradient steps, target averaging."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from pytorch_lightning import LightningModule
from tensordict import TensorDict
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_mbrl.adam import FusedAdam
from lit_mbrl.behaviour import Behaviour
from lit_mbrl.compilation import Compiler, Objective
from lit_mbrl.dynamics import Dynamics, FitReport, fit
from lit_mbrl.errors import require


class Agent(LightningModule):
    """Base of the algorithms: a LightningModule with manual optimization.

    An algorithm implements `named_optimizers` and `training_step`, and has an `actor` or implements
    `act`. One that learns a model makes it, `dynamics`, and sets `fit_patience`; one that imagines
    data has besides `imagine`, which a callback calls, and imagines for `rollout_length` steps,
    which another one sets.

    One batch is one environment step, so Lightning's count of batches is the count of environment
    steps. `trainer.global_step`, Lightning's count of gradient steps, stays 0 (see `step`):
    callbacks that go by it, such as its own ModelCheckpoint, do nothing; `EnvStepCheckpoint` does.
    """

    plan_length = 1
    rollout_length = 1
    needs_paths = False  # whether windows have all the states on their way
    needs_log_prob = False  # whether actions are kept with what `log_prob(s, a)` was then
    learns_from_batches = True  # if not, `data.updates_per_step` is 0
    learns_from_warmup = True  # whether batches may hold the random actions of the warm-up
    fixed_shapes = True  # whether each step's tensors are as large as the last one's: see Compiler

    actor: Any
    dynamics: Dynamics
    fit_patience: int

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.compiler = Compiler()
        self.gradient_norms: dict[str, Tensor] = {}  # of clipped steps, before the clipping
        self._optimizers: dict[str, Optimizer] = {}
        self._averaged: dict[nn.Module, tuple[list[Tensor], list[Tensor]]] = {}

    @abstractmethod
    def named_optimizers(self) -> dict[str, Optimizer]:
        """The optimizers by name; their order is the order of their states in a checkpoint."""

    def act(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        """Actions [B, A] in [-1, 1] for observations [B, S]: to collect, or to evaluate.

        By default those of `actor`, a module with `act` of the same kind that needs nothing but
        itself.
        """
        action: Tensor = self.actor.act(observation, deterministic)
        return action

    def behaviour(
        self, copies: int, deterministic: bool = False, collects: bool = False
    ) -> Behaviour:
        """The policy as it acts in copies of a task; it may remember something of each.

        Args:
            copies: How many.
            deterministic: To evaluate, and not to explore.
            collects: Explores in the one copy that D_env comes from, a step of it after the other.
                On a GPU what is alike at each can be a graph, see `Compiler.capture`: of several
                copies episodes end one by one, and each number of them would be captured anew.
        """
        if collects:
            return Behaviour(partial(self.compiler.capture, "the policy", self.act))
        if deterministic and self.device.type != "cpu" and type(self).act is Agent.act:
            # So few observations a processor answers sooner than it can ask a GPU to.
            actor = deepcopy(self.actor).cpu()
            return Behaviour(partial(actor.act, deterministic=True), torch.device("cpu"))
        return Behaviour(partial(self.act, deterministic=deterministic))

    def autocast(self) -> AbstractContextManager[None]:
        """What `trainer.precision` asks for, for what is computed outside of `training_step`."""
        if self._trainer is None:
            return nullcontext()
        return self._trainer.precision_plugin.forward_context()

    def fit_dynamics(self, transitions: TensorDict) -> FitReport:
        """Fit the model to transitions [N] of D_env by maximum likelihood."""
        optimizer = self.optimizer("dynamics")
        return fit(self.dynamics, optimizer, transitions, patience=self.fit_patience)

    def expect_batches(self, real_rows: int, imagined_rows: int) -> None:
        """Be told, before training, how batches are made up: real rows first, then imagined ones.

        Raises:
            ConfigurationError: If they cannot be learned from.
        """

    def configure_optimizers(self) -> list[Optimizer]:
        """Lightning's hook: `named_optimizers` as a list."""
        self._optimizers = self.named_optimizers()
        return list(self._optimizers.values())

    def optimizer(self, name: str) -> Optimizer:
        """The optimizer called `name`."""
        return self._optimizers[name]

    def step(
        self, name: str, objective: Objective, *inputs: Any, max_norm: float | None = None
    ) -> tuple[Tensor, ...]:
        """One gradient step of one optimizer on `objective(*inputs)`, and of nothing else.

        Torch's own differentiation and `step`, not Lightning's around them: with the twenty and
        more gradient steps of an environment step their hooks would take a tenth of its time, and
        the precisions that are allowed scale no loss.

        Args:
            name: The optimizer; gradients are computed for its parameters alone.
            objective: A method that returns a scalar to minimise, or a tuple that begins with it.
                It may run compiled, see `Compiler`.
            inputs: Of the objective.
            max_norm: Largest norm of the gradient; larger ones are scaled down to it.

        Returns:
            What the objective returned, detached.
        """
        update, optimizer = f"the {name}'s update", self.optimizer(name)
        outputs, norm = self.compiler.step(update, objective, optimizer, *inputs, max_norm=max_norm)
        if norm is not None:
            self.gradient_norms[name] = norm
        return outputs

    @torch.no_grad()
    def track(self, target: nn.Module, source: nn.Module, rate: float) -> None:
        """Polyak averaging: target <- rate source + (1 - rate) target."""
        if target not in self._averaged:  # to look for a module's parameters takes longer
            self._averaged[target] = list(target.parameters()), list(source.parameters())
        torch._foreach_lerp_(*self._averaged[target], rate)

    def log_step(self, **metrics: Tensor | float) -> None:
        """Log `group_name=value` as `group/name`, every `trainer.log_every_n_steps` steps.

        Only the first underscore stands for the slash: `actor_loss` becomes `actor/loss`. The
        loggers are told at once, and not after the step as Lightning's `log` would: a checkpoint of
        this step must not be written before its metrics are.
        """
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.env_steps % every == 0:
            named = {
                name.replace("_", "/", 1): float(torch.as_tensor(value).detach())
                for name, value in metrics.items()
            }
            for logger in self.trainer.loggers:
                logger.log_metrics(named, step=self.env_steps)

    @property
    def env_steps(self) -> int:
        """Environment steps taken, the one being trained on included; warm-up is not counted."""
        return self.trainer.fit_loop.total_batch_idx + 1


VALID: dict[str, tuple[Callable[[Any], bool], str]] = {
    "hidden_sizes": (lambda sizes: min(sizes, default=0) >= 1, "a list of integers >= 1"),
    "learning_rate": (lambda rate: rate > 0, "a number > 0"),
    "gamma": (lambda gamma: 0 <= gamma <= 1, "a number in [0, 1]"),
    "target_rate": (lambda rate: 0 < rate <= 1, "a number in (0, 1]"),
    "actor_max_norm": (lambda norm: norm > 0, "a number > 0"),
    "fit_patience": (lambda epochs: epochs >= 1, "an integer of at least 1"),
}
"""What an option that algorithms have in common may be, as a function and in words."""


def require_valid(options: Mapping[str, Any]) -> None:
    """Check those of an algorithm's options that `VALID` knows.

    Raises:
        ConfigurationError: If one is out of its range.
    """
    for name, (holds, allowed) in VALID.items():
        if name in options:
            require(holds(options[name]), f"model.{name}", options[name], allowed)


def adam(learning_rate: float, **modules: nn.Module) -> dict[str, Optimizer]:
    """An Adam for each module that has parameters (a fixed temperature has none), by its name."""
    return {
        name: FusedAdam(module.parameters(), lr=learning_rate)
        for name, module in modules.items()
        if list(module.parameters())
    }
