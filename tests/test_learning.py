"""Each algorithm learns a task small enough to learn in seconds."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from lit_mbrl.callbacks import Evaluation, Retraining, RolloutLength
from pytorch_lightning import Callback, Trainer, seed_everything

from lit_mbrl.algorithms import MBPO, MPPVE, SAC
from lit_mbrl.data import ReplayData


class Home(gymnasium.Env[Any, Any]):
    """Walk home along a line: the reward is minus the distance, and leaving [-3, 3] is the end.

    From a start 1 to 2 away the best return of 20 steps is about -2.5 and standing still has -30.
    """

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-0.5, 0.5, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        side = self.np_random.choice([-1.0, 1.0])
        self.position = side * self.np_random.uniform(1.0, 2.0)
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.position += float(action[0])
        gone = abs(self.position) > 3
        return self._observe(), -abs(self.position) - 20.0 * gone, gone, False, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.position], np.float32)


gymnasium.register("Home-v0", Home, max_episode_steps=20)


def gone(observation: torch.Tensor, action: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """Home's termination."""
    return following[..., 0].abs() > 3


MODEL = {
    "termination": f"{__name__}.gone",
    "dynamics_hidden_sizes": [32, 32],
    "dynamics_weight_decay": [0.0, 0.0, 0.0],
    "dynamics_networks": 3,
    "dynamics_elites": 2,
}


@pytest.mark.parametrize("algorithm", [SAC, MBPO, MPPVE])
def test_learns_to_walk_home(algorithm: Any) -> None:
    seed_everything(seed := 0)
    learns_model = algorithm is not SAC
    data = ReplayData(
        "Home-v0",
        termination=f"{__name__}.gone",
        batch_size=64,
        updates_per_step=5,
        real_ratio=0.25 if learns_model else 1.0,
        warmup_steps=300,
        steps_per_epoch=250,
        seed=seed,
    )
    agent = algorithm(
        observation_size=1,
        action_size=1,
        hidden_sizes=[32, 32],
        learning_rate=1e-3,
        gamma=0.9,
        initial_temperature=0.2,
        target_entropy=-1.0,
        **(MODEL if learns_model else {}),
    )
    evaluation = Evaluation(every=50, episodes=10, seed=seed)
    callbacks: list[Callback] = [RolloutLength(1, 2, 0, 200), evaluation]
    if learns_model:
        callbacks.insert(1, Retraining(every=100, rollouts=1000, retain_steps=200))
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    trainer.fit(agent, data)
    best = max(evaluation.history, key=lambda evaluated: evaluated.return_mean)
    assert best.return_mean > -10
    assert best.episode_length == 20
