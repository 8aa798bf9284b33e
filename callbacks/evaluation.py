"""Evaluation episodes."""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import TIMEOUT_MAX, Thread
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Env
from pytorch_lightning import Callback, LightningModule, Trainer
from tensordict import TensorDict

from lit_mbrl.envs import Resumable, make_gym_env
from lit_mbrl.errors import require
from lit_mbrl.held_out import collect, own_randomness
from lit_mbrl.planning import Planner, lookahead
from lit_mbrl.value_bias import value_bias

from .trainer import callback_of, data_of, env_steps, log, phase

BIAS_STEPS = 1000
"""Of each copy of the task, from which the bias of the values is taken."""


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
    collector's; evaluating draws no random number that training would have drawn, unless it is
    given up at the time limit.

    Args:
        every: Environment steps from evaluation to evaluation.
        episodes: Episodes of an evaluation.
        seed: Of the episodes' initial states. The command line sets it to `seed_everything`.
        time_limit: Seconds after which an evaluation is given up, a line says so and training goes
            on: a task that hangs hangs in a thread that nothing waits for.
        value_bias: Log the bias of the critics' values too, see `lit_mbrl.value_bias`, from 1,000
            more steps of the behaviour policy in each copy; it is not logged where every state is
            too near to a time limit.
        planner: Evaluate with this on top of the policy, see `lit_mbrl.planning.lookahead`; which
            checkpoint is the best goes by these returns then.
    """

    def __init__(
        self,
        every: int = 1000,
        episodes: int = 10,
        seed: int = 0,
        time_limit: float = 3600.0,
        value_bias: bool = False,
        planner: Planner | None = None,
    ):
        require(every >= 1, "evaluation.every", every, "an integer of at least 1")
        require(episodes >= 1, "evaluation.episodes", episodes, "an integer of at least 1")
        longest = f"a number of seconds in (0, {TIMEOUT_MAX:g}]"
        usable = 0 < time_limit <= TIMEOUT_MAX
        require(usable, "evaluation.time_limit", time_limit, longest)
        self.every, self.episodes, self.seed = every, episodes, seed
        self.time_limit, self.value_bias, self.planner = time_limit, value_bias, planner
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
        self._started = time.monotonic()
        self._make_envs(trainer)

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
                found = self._run_within_limit(trainer, pl_module)
            if found is None:
                return
            returns, lengths, real = found
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
                    "time/wall_seconds": evaluated.wall_seconds,
                },
            )
            spec = self._envs[0].spec
            limit = spec.max_episode_steps if spec else None
            bias = None if real is None else value_bias(pl_module, real, self.seed, limit)
            if bias is not None:
                log(
                    trainer,
                    {
                        "critic/bias_mean": bias["plain"].mean,
                        "critic/bias_std": bias["plain"].std,
                        "critic/soft_bias_mean": bias["soft"].mean,
                        "critic/soft_bias_std": bias["soft"].std,
                    },
                )

    def _make_envs(self, trainer: Trainer) -> None:
        data = data_of(trainer)
        self._envs = [
            Resumable(make_gym_env(data.env_id, data.env_kwargs)) for _ in range(self.episodes)
        ]

    def _run_within_limit(
        self, trainer: Trainer, agent: Any
    ) -> tuple[np.ndarray, np.ndarray, TensorDict | None] | None:
        """`_run`; None if it took too long, with new copies of the task for the next."""
        outcome: Future[tuple[np.ndarray, np.ndarray, TensorDict | None]] = Future()

        def run() -> None:
            try:
                outcome.set_result(self._run(agent))
            except BaseException as error:
                outcome.set_exception(error)

        Thread(target=run, daemon=True).start()  # a daemon: a run can end while it hangs
        try:
            return outcome.result(self.time_limit)
        except TimeoutError:
            if outcome.done():  # the task's own
                raise
            print(
                f"the evaluation at environment step {env_steps(trainer):,} took longer than "
                f"evaluation.time_limit ({self.time_limit:g} s) and was given up",
                file=sys.stderr,
                flush=True,
            )
            self._make_envs(trainer)
            return None

    def _run(self, agent: Any) -> tuple[np.ndarray, np.ndarray, TensorDict | None]:
        """`run_episodes`, and what the bias of the values is taken from if that is asked for."""
        envs = self._envs
        returns, lengths = self.run_episodes(agent)
        if not self.value_bias:
            return returns, lengths, None
        real = collect(agent, envs, BIAS_STEPS, self.seed, lambda: envs is not self._envs)
        return returns, lengths, real

    def run_episodes(self, agent: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns and lengths [episodes] of one deterministic episode in each copy."""
        envs = self._envs
        return run_episodes(agent, envs, self.seed, self.planner, lambda: envs is not self._envs)


@torch.no_grad()
def run_episodes(
    agent: Any,
    envs: Sequence[Env[Any, Any]],
    seed: int,
    planner: Planner | None = None,
    given_up: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, np.ndarray]:
    """One deterministic episode in each of some copies of a task, side by side.

    Args:
        agent: The algorithm whose policy acts.
        envs: The copies, with actions in [-1, 1].
        seed: Of the initial states, of which each copy has one of its own, and of the candidates of
            policies that plan.
        planner: What acts on top of the policy, see `lit_mbrl.planning.lookahead`, if given.
        given_up: Asked before each step; the episodes end there once it is true.

    Returns:
        Returns and lengths [episodes].
    """
    returns, lengths = np.zeros(len(envs)), np.zeros(len(envs))
    # Far from the collector's seed, whatever the number of episodes.
    seeds = np.random.SeedSequence([seed, 1]).generate_state(len(envs))
    starts = [env.reset(seed=int(start))[0] for env, start in zip(envs, seeds, strict=True)]
    observations = np.stack(starts).astype(np.float32)
    running = np.arange(len(envs))
    if planner is None:
        behaviour = agent.behaviour(len(envs), deterministic=True)
    else:
        behaviour = lookahead(agent, planner, len(envs))
    draws = np.random.default_rng([seed, 3])
    device = agent.device if behaviour.device is None else behaviour.device
    begins = torch.ones(len(envs), dtype=torch.bool, device=device)
    while running.size and not given_up():
        # A copy of torch's: products of two rows depend on alignment in the last bit.
        batch = torch.tensor(observations[running], device=device)
        copies = torch.tensor(running, device=device)
        with own_randomness(int(draws.integers(2**32)), device):
            actions = behaviour(batch, copies, begins[: running.size]).cpu().numpy()
        begins[:] = False
        ended = np.zeros(running.size, dtype=bool)
        for i, (episode, action) in enumerate(zip(running, actions, strict=True)):
            step = envs[int(episode)].step(action)
            observations[episode], reward, terminated, truncated, _ = step
            returns[episode] += float(reward)
            lengths[episode] += 1
            ended[i] = terminated or truncated
        running = running[~ended]
    return returns, lengths


def evaluations(trainer: Trainer) -> list[Evaluated]:
    """What the trainer's `Evaluation` has found so far."""
    evaluation = callback_of(trainer, Evaluation)
    return [] if evaluation is None else evaluation.history


def latest(trainer: Trainer) -> Evaluated | None:
    """The newest evaluation, if there was one."""
    history = evaluations(trainer)
    return history[-1] if history else None
