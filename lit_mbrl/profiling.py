"""The time of each phase of the training loop, by Lightning's own profiling hooks."""

import time

from pytorch_lightning.profilers import Profiler

PHASES = {
    "[_TrainingEpochLoop].train_dataloader_next": "collect",
    "run_training_batch": "update",
    "fit": "fit",
    "imagine": "imagine",
    "evaluate": "evaluate",
    "diagnose": "diagnose",
    "checkpoint": "checkpoint",
}
"""Lightning's action names, or ours (`trainer.profiler.profile("fit")`), and their phases."""


class PhaseProfiler(Profiler):
    """Adds up the seconds of a few phases; costs a dictionary look-up an action.

    Attributes:
        seconds: Those of each phase since the process began.
    """

    def __init__(self) -> None:
        super().__init__()
        self._began: dict[str, float] = {}
        self.seconds = dict.fromkeys(PHASES.values(), 0.0)
        self._taken = dict(self.seconds)

    def start(self, action_name: str) -> None:
        """Lightning's hook: an action begins."""
        if action_name in PHASES:
            self._began[action_name] = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Lightning's hook: an action ends."""
        if action_name in self._began:
            spent = time.perf_counter() - self._began.pop(action_name)
            self.seconds[PHASES[action_name]] += spent

    def take(self) -> dict[str, float]:
        """Seconds of each phase since the last call."""
        taken = {phase: spent - self._taken[phase] for phase, spent in self.seconds.items()}
        self._taken = dict(self.seconds)
        return taken
