"""The data module on a real simulator."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from pytorch_lightning import Trainer

from lit_mbrl.algorithms import Agent
from lit_mbrl.behaviour import Behaviour
from lit_mbrl.data import ReplayData
from lit_mbrl.errors import ConfigurationError


class Clock(gymnasium.Env[Any, Any]):
    """Observes its own step number; ends at a wall 7 steps away, or at gymnasium's time limit."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-2.0, 5.0, (1,), np.float32)

    def __init__(self, wall: int = 7):
        self.wall, self.episode, self.time = wall, -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.time += 1
        return self._observe(), float(action[0]), self.time == self.wall, False, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.episode, self.time], np.float64)


gymnasium.register("Walled-v0", Clock, kwargs={"wall": 7}, max_episode_steps=100)
gymnasium.register("Timed-v0", Clock, kwargs={"wall": 1000}, max_episode_steps=7)


class Still(Agent):
    """An agent with plans of three steps that does nothing."""

    plan_length = 3

    def act(self, observation: torch.Tensor, deterministic: bool = False) -> torch.Tensor:
        return torch.zeros(*observation.shape[:-1], 1)

    def behaviour(
        self, copies: int, deterministic: bool = False, collects: bool = False
    ) -> Behaviour:
        assert copies == 1 and collects, "what a GPU captures is the collector's"
        return super().behaviour(copies, deterministic, collects)


def collected(env_id: str, steps: int = 20, seed: int = 0) -> ReplayData:
    data = ReplayData(
        env_id,
        termination="never",
        batch_size=10,
        real_ratio=1.0,
        warmup_steps=100,
        seed=seed,
    )
    trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy._lightning_module = Still()
    data.trainer = trainer
    for _, _ in zip(range(steps), data.train_dataloader(), strict=False):
        pass
    data.teardown("fit")
    return data


def test_warm_up_is_random_over_the_whole_action_range_and_training_is_the_policy() -> None:
    data = collected("Walled-v0")
    transitions = data.replay.transitions()
    assert len(transitions) == 120
    random, acted = transitions["action"][:100, 0], transitions["action"][100:, 0]
    assert random.min() < -0.8 and random.max() > 0.8 and random.abs().max() <= 1
    assert acted.eq(0).all()
    # [-1, 1] is scaled to the task's [-2, 5]: the reward is the action that arrived.
    assert torch.allclose(transitions["reward"], transitions["action"][:, 0] * 3.5 + 1.5, atol=1e-5)
    assert transitions["observation"].dtype == torch.float32


def test_the_environment_is_seeded_and_its_transitions_chain_from_the_first() -> None:
    """Each step begins where the step before it ended, and a seed fixes the initial states."""
    first, same, other = (
        collected("InvertedPendulum-v5", seed=seed).replay.transitions() for seed in (3, 3, 4)
    )
    ends = first["next", "observation"][:-1]
    chained = (first["observation"][1:] == ends).all(-1) | first["next", "terminated"][:-1]
    assert chained.all()
    env = gymnasium.make("InvertedPendulum-v5")
    env.reset(seed=3)
    initial = torch.tensor(env.reset()[0], dtype=torch.float32)
    assert torch.equal(first["observation"][0], initial)
    assert torch.equal(same["observation"][0], initial)
    assert not torch.equal(other["observation"][0], initial)


def test_terminations_and_time_limits_are_told_apart() -> None:
    """Both tasks end after seven steps; only one of them truly."""
    walled, timed = collected("Walled-v0"), collected("Timed-v0")
    for data in (walled, timed):
        times = data.replay.transitions()["next", "observation"][:, 1]
        assert times.tolist() == [1 + i % 7 for i in range(120)]  # the last one is not the reset's
    assert walled.replay.transitions()["next", "terminated"].sum() == 17
    assert not timed.replay.transitions()["next", "terminated"].any()
    batch = walled.replay.sample_windows(2000)
    late = batch["observation"][:, 1] > 4
    assert torch.equal(~batch["mask"].all(1), late)
    assert batch["next", "terminated"][late].all()
    assert timed.replay.windows(timed.replay.starts())["observation"][:, 1].max() == 4


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_observations_of_any_precision_become_float32(dtype: Any) -> None:
    class Coarse(Clock):
        observation_space = Box(-np.inf, np.inf, (2,), dtype)

        def _observe(self) -> np.ndarray:
            return super()._observe().astype(dtype)

    gymnasium.register("Coarse-v0", Coarse, max_episode_steps=100)
    data = collected("Coarse-v0")
    assert data.replay.transitions()["observation"].dtype == torch.float32
    assert data.replay.transitions()["next", "observation"][:, 1].max() == 7


def test_last_episode_return_is_of_the_latest_whole_episode() -> None:
    data = collected("Walled-v0", steps=40)
    reward = data.replay.transitions()["reward"]
    assert data.last_episode_return == pytest.approx(reward[126:133].sum().item(), rel=1e-5)


def test_too_short_episodes_for_the_plan_are_reported() -> None:
    with pytest.raises(ConfigurationError, match="plan_length: 3 was given"):
        gymnasium.register("Short-v0", Clock, kwargs={"wall": 1000}, max_episode_steps=2)
        collected("Short-v0")
