"""What all algorithms share: named optimizers, gradient steps, target averaging."""

from abc import abstractmethod

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Adam, Optimizer


class Agent(LightningModule):
    """Base of the algorithms: a LightningModule with manual optimization.

    An algorithm implements `named_optimizers`, `act` and `training_step`. One that learns a model
    has besides `fit_dynamics`, `imagine` and `rollout_length`, which callbacks call and set.

    One batch is one environment step, so Lightning's count of batches is the count of environment
    steps; `trainer.global_step` counts gradient steps and nothing here uses it.
    """

    plan_length = 1

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self._optimizer_index: dict[str, int] = {}

    @abstractmethod
    def named_optimizers(self) -> dict[str, Optimizer]:
        """The optimizers by name; their order is the order of their states in a checkpoint."""

    @abstractmethod
    def act(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        """Actions [B, A] in [-1, 1] for observations [B, S]: to collect, or to evaluate."""

    def check_batch(self, real_rows: int, imagined_rows: int) -> None:  # noqa: B027
        """Raise a `ConfigurationError` if batches made up like this cannot be learned from."""

    def configure_optimizers(self) -> list[Optimizer]:
        """Lightning's hook: `named_optimizers` as a list."""
        named = self.named_optimizers()
        self._optimizer_index = {name: index for index, name in enumerate(named)}
        return list(named.values())

    def optimizer(self, name: str) -> Optimizer:
        """The optimizer called `name`, as Lightning wraps it."""
        return self.optimizers()[self._optimizer_index[name]]  # type: ignore[index,return-value]

    def step(self, name: str, loss: Tensor, max_norm: float | None = None) -> None:
        """One gradient step of one optimizer on `loss`, and of nothing else.

        Args:
            name: The optimizer; gradients are computed for its parameters alone.
            loss: Scalar.
            max_norm: Largest norm of the gradient; larger ones are scaled down to it.
        """
        optimizer = self.optimizer(name)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.zero_grad()
        self.manual_backward(loss, inputs=parameters)
        if max_norm is not None:
            nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()

    @torch.no_grad()
    def track(self, target: nn.Module, source: nn.Module, rate: float) -> None:
        """Polyak averaging: target <- rate source + (1 - rate) target."""
        torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)

    def log_step(self, **metrics: Tensor | float) -> None:
        """Log `group_name=value` as `group/name` at the environment step of this batch.

        Only the first underscore stands for the slash: `actor_loss` becomes `actor/loss`.
        """
        named = {name.replace("_", "/", 1): value for name, value in metrics.items()}
        self.log_dict({**named, "step": float(self.env_steps)})

    @property
    def env_steps(self) -> int:
        """Environment steps taken, the one being trained on included; warm-up is not counted."""
        return self.trainer.fit_loop.total_batch_idx + 1


def adam(learning_rate: float, **modules: nn.Module) -> dict[str, Optimizer]:
    """An Adam for each module that has parameters (a fixed temperature has none), by its name."""
    return {
        name: Adam(module.parameters(), lr=learning_rate, fused=True)
        for name, module in modules.items()
        if list(module.parameters())
    }
