"""Evaluation episodes."""

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Env
from pytorch_lightning import Callback, LightningModule, Trainer

from lit_mbrl.envs import Resumable, make_gym_env
from lit_mbrl.errors import require

from .trainer import data_of, env_steps, log, phase


class Evaluated(NamedTuple):
    """An evaluation: its environment step, the episodes' returns and lengths, the seconds so far.

    `wall_seconds` count from the start of the fit, warm-up included, evaluations included.
    """

    env_step: int
    return_mean: float
    return_std: float
    episode_length: float
    wall_seconds: float


class Evaluation(Callback):
    """Deterministic episodes in parallel copies of the task, every so many environment steps.

    The copies are seeded by the run's seed, the same at each evaluation, and apart from the
    collector's; evaluating draws no random number that training would have drawn.

    Args:
        every: Environment steps from evaluation to evaluation.
        episodes: Episodes of an evaluation.
        seed: Of the episodes' initial states. The command line sets it to `seed_everything`.
    """

    def __init__(self, every: int = 1000, episodes: int = 10, seed: int = 0):
        require(every >= 1, "evaluation.every", every, "an integer of at least 1")
        require(episodes >= 1, "evaluation.episodes", episodes, "an integer of at least 1")
        self.every, self.episodes, self.seed = every, episodes, seed
        self.history: list[Evaluated] = []
        self._envs: list[Env[Any, Any]] = []
        self._started = 0.0
        self._earlier = 0.0  # seconds of the run before it was continued

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook: what a run that goes on needs to know."""
        return {"history": [tuple(row) for row in self.history], "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        self.history = [Evaluated(*row) for row in state_dict["history"]]
        self._earlier = state_dict["seconds"]

    def _seconds(self) -> float:
        return self._earlier + time.monotonic() - self._started

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the copies of the task."""
        data = data_of(trainer)
        self._started = time.monotonic()
        self._envs = [
            Resumable(make_gym_env(data.env_id, data.env_kwargs)) for _ in range(self.episodes)
        ]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close them."""
        for env in self._envs:
            env.close()
        self._envs = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Evaluate if due."""
        if env_steps(trainer) % self.every == 0:
            with phase(trainer, "evaluate"):
                returns, lengths = self.run_episodes(pl_module)
            evaluated = Evaluated(
                env_steps(trainer),
                float(returns.mean()),
                float(returns.std()),
                float(lengths.mean()),
                self._seconds(),
            )
            self.history.append(evaluated)
            log(
                trainer,
                {
                    "eval/return_mean": evaluated.return_mean,
                    "eval/return_std": evaluated.return_std,
                    "eval/episode_length": evaluated.episode_length,
                },
            )

    @torch.no_grad()
    def run_episodes(self, agent: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns and lengths [episodes] of one deterministic episode in each copy."""
        returns, lengths = np.zeros(self.episodes), np.zeros(self.episodes)
        # Far from the collector's seed, whatever the number of episodes.
        seeds = np.random.SeedSequence([self.seed, 1]).generate_state(self.episodes)
        starts = [env.reset(seed=int(seed))[0] for env, seed in zip(self._envs, seeds, strict=True)]
        observations = np.stack(starts).astype(np.float32)
        running = np.arange(self.episodes)
        while running.size:
            # A copy of torch's: products of two rows depend on alignment in the last bit.
            batch = torch.tensor(observations[running], device=agent.device)
            actions = agent.act(batch, deterministic=True).cpu().numpy()
            ended = np.zeros(running.size, dtype=bool)
            for i, (episode, action) in enumerate(zip(running, actions, strict=True)):
                step = self._envs[episode].step(action)
                observations[episode], reward, terminated, truncated, _ = step
                returns[episode] += float(reward)
                lengths[episode] += 1
                ended[i] = terminated or truncated
            running = running[~ended]
        return returns, lengths


def evaluations(trainer: Trainer) -> list[Evaluated]:
    """What the trainer's `Evaluation` has found so far."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Evaluation):
            return callback.history
    return []


def latest(trainer: Trainer) -> Evaluated | None:
    """The newest evaluation, if there was one."""
    history = evaluations(trainer)
    return history[-1] if history else None
