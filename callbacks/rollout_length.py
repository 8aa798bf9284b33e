"""The schedule of the rollout length."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lit_mbrl.errors import require


class RolloutLength(Callback):
    """The rollout length L(t) at environment step t (paper 000, Table 1).

    L(t) goes from `start` to `end` while t goes from `start_step` to `end_step`; fractions are
    dropped, as in the published code, which looks at the schedule only when it fits. What is
    imagined is the same, since L is read for it only after a fit. The default is 1 throughout.

    Args:
        start: Rollout length up to `start_step`.
        end: Rollout length from `end_step` on; it may be the smaller one.
        start_step: Environment step from which on it goes to `end` (a of Table 1).
        end_step: Environment step at which it is there (b of Table 1).
    """

    def __init__(self, start: int = 1, end: int = 1, start_step: int = 0, end_step: int = 0):
        require(start >= 1, "rollout_length.start", start, "an integer of at least 1")
        require(end >= 1, "rollout_length.end", end, "an integer of at least 1")
        require(start_step >= 0, "rollout_length.start_step", start_step, "an integer >= 0")
        require(
            end_step >= start_step,
            "rollout_length.end_step",
            end_step,
            f"an integer of at least rollout_length.start_step ({start_step})",
        )
        self.start, self.end, self.start_step, self.end_step = start, end, start_step, end_step

    def settings(self) -> tuple[int, ...]:
        """What a run that goes on must have had too."""
        return self.start, self.end, self.start_step, self.end_step

    @property
    def longest(self) -> int:
        """The largest L there is."""
        return max(self.start, self.end)

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook: what a checkpoint tells of the schedule."""
        return {"longest": self.longest}

    def at(self, env_step: int) -> int:
        """L(t): floor of x + (t - a) / (b - a) (y - x), x up to step a and y from step b on."""
        if env_step >= self.end_step:
            return self.end
        if env_step <= self.start_step:
            return self.start
        share = (env_step - self.start_step) / (self.end_step - self.start_step)
        return int(self.start + share * (self.end - self.start))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set L before the first model is used."""
        self._set(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Set L for the next environment step."""
        self._set(pl_module)

    def _set(self, agent: Any) -> None:
        agent.rollout_length = self.at(agent.env_steps)
