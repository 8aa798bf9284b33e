"""Model retraining: when the dynamics are fitted and the imagined data renewed."""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from tensordict import TensorDict

from lit_mbrl.devices import send
from lit_mbrl.dynamics import Dynamics
from lit_mbrl.errors import DivergenceError, require

from .trainer import callback_of, data_of, env_steps, log, phase


class Retraining(Callback):
    """Fit the dynamics and imagine, before step 0 and at the end of every `every`-th step.

    So the model that serves step t was fitted on all data before t. D_model keeps as many windows
    as `retain_steps` environment steps make at the present rollout length where no branch ends
    early (where some do, or rollouts have grown, older ones stay). Before a fit
    the model is tried on the steps since the last one, which it has not seen
    (`dynamics/prediction_error`).

    Args:
        every: Environment steps from fit to fit; 0 never fits, for algorithms without a model.
        rollouts: Branched rollouts after each fit; 0 for algorithms that imagine as they learn, or
            plan, and keep no imagined data.
        retain_steps: Environment steps whose imagined windows D_model has room for.
        fit_rows: Transitions of a fit at most, drawn from D_env anew for each, so that fits cease
            to grow with it; all of D_env if None, as in the papers.
    """

    def __init__(
        self,
        every: int = 0,
        rollouts: int = 100_000,
        retain_steps: int = 1000,
        fit_rows: int | None = None,
    ):
        require(every >= 0, "retraining.every", every, "an integer >= 0; 0 never retrains")
        require(rollouts >= 0, "retraining.rollouts", rollouts, "an integer >= 0; 0 imagines none")
        require(
            retain_steps >= every,
            "retraining.retain_steps",
            retain_steps,
            f"an integer of at least retraining.every ({every})",
        )
        enough = fit_rows is None or fit_rows >= 2
        require(
            enough, "retraining.fit_rows", fit_rows, "an integer >= 2, or null for all of D_env"
        )
        self.every, self.rollouts, self.retain_steps = every, rollouts, retain_steps
        self.fit_rows = fit_rows
        self.holdout_mse: float | None = None  # of the last fit

    def settings(self) -> tuple[int | None, ...]:
        """What a run that goes on must have had too."""
        return self.every, self.rollouts, self.retain_steps, self.fit_rows

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first fit, on the warm-up's data; a run that goes on has had it.

        Raises:
            ConfigurationError: If no episode was long enough to imagine from.
        """
        if self.every and self.rollouts:
            data = data_of(trainer)
            data.require_windows(data.replay.full_starts())
        if self.every and env_steps(trainer) == 0:
            self._retrain(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Retrain if due, also after the last step: a run may be taken further."""
        if self.every and pl_module.env_steps % self.every == 0:
            self._retrain(trainer, pl_module)

    def _retrain(self, trainer: Trainer, agent: Any) -> None:
        data = data_of(trainer)
        metrics: dict[str, float] = {}
        with phase(trainer, "fit"):
            transitions = data.replay.transitions()
            if env_steps(trainer):
                unseen = transitions[-self.every :]
                metrics["dynamics/prediction_error"] = prediction_error(agent.dynamics, unseen)
            if self.fit_rows is not None:
                drawn = torch.randperm(len(transitions))[: self.fit_rows]
                transitions = transitions[send(drawn, transitions.device)]
            with agent.autocast():
                report = agent.fit_dynamics(transitions)
        if not math.isfinite(report.holdout_mse):
            raise DivergenceError(f"the dynamics' holdout error is {report.holdout_mse}")
        self.holdout_mse = report.holdout_mse
        metrics |= {
            "dynamics/epochs": report.epochs,
            "dynamics/holdout_mse": report.holdout_mse,
            "dynamics/holdout_nll": report.holdout_nll,
        }
        if report.termination_error is not None:
            metrics["dynamics/termination_error"] = report.termination_error
        if self.rollouts:
            with phase(trainer, "imagine"), agent.autocast():
                windows = agent.imagine(data.replay, self.rollouts)
            if not len(windows):
                raise DivergenceError("no imagined step is finite")
            with phase(trainer, "imagine"):
                rollouts_kept = self.rollouts * self.retain_steps // self.every
                data.imagined.resize(rollouts_kept * agent.rollout_length)
                data.imagined.extend(windows)
            metrics["rollout/length"] = agent.rollout_length
            metrics["rollout/imagined"] = len(windows)
        log(trainer, metrics)


@torch.no_grad()
def prediction_error(dynamics: Dynamics, transitions: TensorDict) -> float:
    """Mean L2 distance of the next observations [N] from where the elites expect them to be."""
    expected, _, _ = dynamics.expected_step(transitions["observation"], transitions["action"])
    return float((expected - transitions["next", "observation"]).norm(dim=-1).mean())


def model_error(trainer: Trainer) -> float | None:
    """The holdout error of the last fit of the dynamics, if there was one."""
    retraining = callback_of(trainer, Retraining)
    return None if retraining is None else retraining.holdout_mse
