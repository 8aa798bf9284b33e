"""The data module: the environment, its collector, the replay buffers, batches."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

# TorchRL would import this while it makes an environment, and keep the error that an older gym is
# not installed, and with the error's traceback all that the first run of a process holds.
import torchrl.envs.libs.utils  # noqa: F401
from gymnasium.wrappers import DtypeObservation
from pytorch_lightning import LightningDataModule
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, GymWrapper

from lit_mbrl.behaviour import Behaviour
from lit_mbrl.data.replay import EnvironmentReplay, ImaginedReplay
from lit_mbrl.devices import send
from lit_mbrl.envs import Resumable, make_gym_env, termination_path
from lit_mbrl.errors import require


class ReplayData(LightningDataModule):
    """Steps the environment once a batch and draws the batch from D_env and D_model.

    A batch is a TensorDict [G, B] of windows (see `windows_from`): G gradient updates of B rows,
    the first int(real_ratio B) of each from D_env, the rest from D_model. The batch of environment
    step t is drawn after step t was stored.

    Args:
        env_id: A gymnasium task with Box observations and actions; `module:Name-v0` for your own.
        env_kwargs: Arguments for the task's constructor.
        termination: Dotted path of its termination function, `never`, or `learned` by the dynamics;
            by default known for the tasks of `lit_mbrl.envs.TASKS` and learned for others.
        batch_size: B, windows of one gradient update.
        updates_per_step: G, gradient updates of one environment step; 0 for algorithms that learn
            nothing between two fits.
        real_ratio: Share of a batch that comes from D_env.
        warmup_steps: Steps with uniformly random actions before step 0; they are not counted.
        replay_capacity: Transitions that D_env keeps.
        recent_windows: Draw from the newest so many windows of D_env; from all if None.
        steps_per_epoch: Environment steps of an epoch.
        seed: Of the environment. The command line sets it to `seed_everything`.
    """

    def __init__(
        self,
        env_id: str,
        env_kwargs: dict[str, Any] | None = None,
        termination: str | None = None,
        batch_size: int = 256,
        updates_per_step: int = 20,
        real_ratio: float = 0.05,
        warmup_steps: int = 5000,
        replay_capacity: int = 1_000_000,
        recent_windows: int | None = None,
        steps_per_epoch: int = 1000,
        seed: int = 0,
    ):
        super().__init__()
        require(batch_size >= 1, "data.batch_size", batch_size, "an integer of at least 1")
        require(updates_per_step >= 0, "data.updates_per_step", updates_per_step, "an integer >= 0")
        require(0 <= real_ratio <= 1, "data.real_ratio", real_ratio, "a number in [0, 1]")
        require(
            warmup_steps >= batch_size,
            "data.warmup_steps",
            warmup_steps,
            f"at least data.batch_size ({batch_size}), so that the first batch can be drawn",
        )
        require(
            replay_capacity >= warmup_steps,
            "data.replay_capacity",
            replay_capacity,
            f"at least data.warmup_steps ({warmup_steps})",
        )
        require(
            recent_windows is None or recent_windows >= 1,
            "data.recent_windows",
            recent_windows,
            "an integer of at least 1, or null to draw from all windows",
        )
        require(steps_per_epoch >= 1, "data.steps_per_epoch", steps_per_epoch, "an integer >= 1")
        # The algorithm records the termination function that was settled on.
        self.save_hyperparameters(ignore=["termination"])
        self.env_id, self.env_kwargs, self.seed = env_id, env_kwargs, seed
        self.batch_size, self.updates_per_step = batch_size, updates_per_step
        self.real_rows = int(real_ratio * batch_size + 1e-9)  # 0.29 of 100 rows are 29
        self.warmup_steps, self.replay_capacity = warmup_steps, replay_capacity
        self.recent_windows, self.steps_per_epoch = recent_windows, steps_per_epoch
        env = make_gym_env(env_id, env_kwargs)
        self.observation_size = int(env.observation_space.shape[0])  # type: ignore[index]
        self.action_size = int(env.action_space.shape[0])  # type: ignore[index]
        self.max_episode_steps = env.spec.max_episode_steps if env.spec else None
        env.close()
        self.termination_path = termination_path(env_id, termination)
        self.replay: EnvironmentReplay
        self.imagined: ImaginedReplay
        self.last_episode_return: float | None = None
        self._episode_return = 0.0
        self._collector: Collector | None = None
        self._behaviour: Behaviour
        self._begins = True  # whether an episode begins with the next step
        self._log_prob: Callable[[Tensor, Tensor], Tensor] | None = None
        self._simulator: Resumable
        self._restored: dict[str, Any] | None = None

    @property
    def imagined_rows(self) -> int:
        """Rows of a batch that come from D_model."""
        return self.batch_size - self.real_rows

    def train_dataloader(self) -> "ReplayLoader":
        """Warm D_env up with random actions, then hand out the loader that steps and draws.

        After `restore` there is no warm-up: everything goes on where `snapshot` was taken.
        """
        assert self.trainer is not None
        agent: Any = self.trainer.lightning_module
        agent.expect_batches(self.real_rows, self.imagined_rows)
        device = agent.device
        self.replay = EnvironmentReplay(
            self.replay_capacity, agent.plan_length, device, agent.needs_paths, self.recent_windows
        )
        self._log_prob = agent.log_prob if agent.needs_log_prob else None
        self.imagined = ImaginedReplay(device)
        self._behaviour = agent.behaviour(copies=1, collects=True)
        self._collector = Collector(
            self._make_env,
            TensorDictModule(self._act, in_keys=["observation"], out_keys=["action"]),
            frames_per_batch=1,
            total_frames=-1,
            init_random_frames=0 if self._restored else self.warmup_steps,
            trust_policy=True,
            auto_register_policy_transforms=False,
            track_traj_ids=False,
        )
        frames = iter(self._collector)
        if self._restored is None:
            for _ in range(self.warmup_steps):
                self._store(next(frames))
            self.last_episode_return = None
            if not agent.learns_from_warmup:
                self.replay.draw_from_here()
        else:
            self._refill(self._restored)
            self._restored = None
        self.require_windows(self.replay.starts())
        if self.imagined_rows:
            self.require_windows(self.replay.full_starts())
        return ReplayLoader(self.steps_per_epoch, lambda: self._step(frames))

    def require_windows(self, starts: Tensor) -> None:
        """Check that some of D_env's steps begin what is to be drawn.

        Args:
            starts: `EnvironmentReplay.starts` or, to imagine from, `full_starts`.

        Raises:
            ConfigurationError: If no episode was long enough.
        """
        require(
            len(starts) > 0,
            "model.plan_length",
            self.replay.plan_length,
            f"at most the length of the longest episode in the {self.warmup_steps} warm-up steps",
        )

    def snapshot(self) -> dict[str, Any]:
        """The buffers, the task in mid-episode and the counts, as plain values and tensors."""
        return {
            "replay": self.replay.snapshot(),
            "imagined": self.imagined.snapshot(),
            "simulator": self._simulator.snapshot(),
            "behaviour": self._behaviour.snapshot(),
            "begins": self._begins,
            "episode_return": self._episode_return,
            "last_episode_return": self.last_episode_return,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Let `train_dataloader` go on from what `snapshot` returned."""
        self._restored = snapshot

    def teardown(self, stage: str) -> None:
        """Close the environment."""
        if self._collector is not None:
            self._collector.shutdown()
            self._collector = None

    def draw(self, imagined: TensorDict | None = None) -> TensorDict:
        """One batch [G, B].

        Args:
            imagined: Its rows from D_model [G, B'], where they are drawn already.
        """
        parts = []
        if self.real_rows:
            real = self.replay.sample_windows(self.updates_per_step * self.real_rows)
            parts.append(real.view(self.updates_per_step, self.real_rows))
        if self.imagined_rows:
            parts.append(self._draw_imagined() if imagined is None else imagined)
        return torch.cat(parts, 1)

    def _draw_imagined(self) -> TensorDict:
        rows = self.imagined.sample(self.updates_per_step * self.imagined_rows)
        return rows.view(self.updates_per_step, self.imagined_rows)

    def _step(self, frames: Iterator[TensorDict]) -> TensorDict:
        # First what need not wait for the action, while a GPU is busy with the last step's updates.
        imagined = self._draw_imagined() if self.imagined_rows else None
        self._store(next(frames))
        return self.draw(imagined)

    def _act(self, observation: Tensor) -> Tensor:
        """The behaviour policy's action [A] for the observation [S] of the one copy there is.

        The one wait for a GPU that a step has.
        """
        device = self.replay.device
        observations = send(observation.unsqueeze(0), device)
        copies = torch.zeros(1, dtype=torch.long, device=device)
        begins = torch.full((1,), self._begins, device=device)
        return self._behaviour(observations, copies, begins).squeeze(0).cpu()

    def _store(self, frame: TensorDict) -> None:
        log_prob = self._behaviour_log_prob(frame["observation"], frame["action"])
        self.replay.add(frame, log_prob)
        self._episode_return += float(frame["next", "reward"])
        self._begins = bool(frame["next", "done"])
        if self._begins:
            self.last_episode_return, self._episode_return = self._episode_return, 0.0

    @torch.no_grad()
    def _behaviour_log_prob(self, observation: Tensor, action: Tensor) -> Tensor | None:
        """Of an action that was just taken, if it is kept: the policy has not changed since."""
        if self._log_prob is None:
            return None
        device = self.replay.device
        if self.replay.steps < self.warmup_steps:  # uniform over [-1, 1]^A
            return torch.full((1,), -math.log(2) * self.action_size, device=device)
        return self._log_prob(send(observation, device), send(action, device))

    def _refill(self, snapshot: dict[str, Any]) -> None:
        self.replay.restore(snapshot["replay"])
        self.imagined.restore(snapshot["imagined"])
        self.last_episode_return = snapshot["last_episode_return"]
        if snapshot["simulator"] is None:
            print(
                f"{self.env_id} cannot go on in mid-episode: its state cannot be saved. A new "
                "episode begins; the one that was running is cut, as a time limit would cut it.",
                flush=True,
            )
            self.replay.cut()
        else:
            self._episode_return = snapshot["episode_return"]
            self._behaviour.restore(snapshot["behaviour"])
            self._begins = snapshot["begins"]

    def _make_env(self) -> EnvBase:
        gym_env = make_gym_env(self.env_id, self.env_kwargs)
        self._simulator = Resumable(DtypeObservation(gym_env, np.float32))
        # On a device of its own, even the processor, TorchRL would wait for the GPU at each step.
        env = GymWrapper(self._simulator, device=None)
        # Before the collector resets it: seeding the collector would reset it once more, and the
        # first transition would begin in the observation of the reset before.
        if self._restored is None:
            env.set_seed(self.seed)
        elif self._restored["simulator"] is None:
            # Not the seed again, which would repeat the run's first episodes.
            steps = self._restored["replay"]["steps"]
            env.set_seed(int(np.random.SeedSequence([self.seed, steps]).generate_state(1)[0]))
        else:
            self._simulator.resume(self._restored["simulator"])
        return env


class ReplayLoader:
    """A sized iterable, so that Lightning prefetches nothing: a step acts with the newest policy.

    Args:
        steps: Environment steps of an epoch.
        step: Takes one step and draws its batch.
    """

    def __init__(self, steps: int, step: Callable[[], TensorDict]):
        self._steps = steps
        self._step = step

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[TensorDict]:
        for _ in range(self._steps):
            yield self._step()
