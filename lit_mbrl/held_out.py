"""Real transitions that no fit has seen."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium import Env
from tensordict import TensorDict

from lit_mbrl.envs import Resumable, make_gym_env
from lit_mbrl.errors import require

COPIES = 4
"""Of a task, in which transitions are collected side by side."""


def require_transitions(option: str, transitions: int) -> None:
    """Check how many are asked for.

    Raises:
        ConfigurationError: If they cannot be shared out to the copies, or are too few.
    """
    allowed = f"a multiple of {COPIES}, at least {100 * COPIES}"
    fitting = transitions >= 100 * COPIES and transitions % COPIES == 0
    require(fitting, option, transitions, allowed)


def held_out(
    agent: Any, env_id: str, env_kwargs: dict[str, Any] | None, transitions: int, seed: int
) -> TensorDict:
    """New transitions of a task, [C, T] as `collect` has them.

    Args:
        agent: The algorithm whose policy acts.
        env_id: The task, as `make_gym_env` takes it, with `env_kwargs`.
        env_kwargs: Arguments of its constructor.
        transitions: C T, see `require_transitions`.
        seed: Of initial states and actions.
    """
    envs = [Resumable(make_gym_env(env_id, env_kwargs)) for _ in range(COPIES)]
    try:
        return collect(agent, envs, transitions // COPIES, seed)
    finally:
        for env in envs:
            env.close()


@torch.no_grad()
def collect(
    agent: Any,
    envs: Sequence[Env[Any, Any]],
    steps: int,
    seed: int,
    given_up: Callable[[], bool] = lambda: False,
) -> TensorDict:
    """Steps of the behaviour policy in copies of a task, side by side, episode after episode.

    They are held out whatever the agent was trained on, because they were never in its replay:
    initial states and actions are drawn anew, by generators that nothing else draws from.

    Args:
        agent: The algorithm whose policy acts, as it does to collect.
        envs: C copies, with actions in [-1, 1].
        steps: T, of each copy.
        seed: Of initial states and actions.
        given_up: Asked before each step; nothing more is collected once it is true.

    Returns:
        [C, T] on the CPU, a row for each copy: `observation` [C, T, S], `action` [C, T, A],
        `reward` [C, T] and, under `next`, `observation` [C, T, S], `terminated` [C, T] and `done`
        [C, T], which is true also at a time limit and at the last step of a copy.
    """
    # Neither the collector's seeds nor those of evaluations.
    seeds = np.random.SeedSequence([seed, 2]).generate_state(len(envs) + steps)
    starts = [env.reset(seed=int(start))[0] for env, start in zip(envs, seeds[steps:], strict=True)]
    observation = np.stack(starts).astype(np.float32)
    behaviour, copies = agent.behaviour(len(envs)), torch.arange(len(envs), device=agent.device)
    begins = torch.ones(len(envs), dtype=torch.bool)
    frames = []
    for step in range(steps):
        if given_up():
            break
        with own_randomness(int(seeds[step]), agent.device):
            # A copy of torch's, as in an evaluation.
            seen = torch.tensor(observation, device=agent.device)
            action = behaviour(seen, copies, begins.to(agent.device)).cpu()
        following = observation.copy()
        reward = np.zeros(len(envs), dtype=np.float32)
        terminated = np.zeros(len(envs), dtype=bool)
        done = np.full(len(envs), step == steps - 1)
        reached = observation.copy()
        for i, env in enumerate(envs):
            reached[i], reward[i], terminated[i], truncated, _ = env.step(action[i].numpy())
            begins[i] = bool(terminated[i] or truncated)
            following[i] = env.reset()[0] if begins[i] else reached[i]
            done[i] |= bool(begins[i])
        frames.append(
            TensorDict(
                {
                    "observation": torch.from_numpy(observation),
                    "action": action,
                    "reward": torch.from_numpy(reward),
                    "next": {
                        "observation": torch.from_numpy(reached),
                        "terminated": torch.from_numpy(terminated),
                        "done": torch.from_numpy(done),
                    },
                },
                batch_size=[len(envs)],
            )
        )
        observation = following
    return torch.stack(frames, 1)


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from generators seeded for what is done here; the shared ones are left as they were."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        # Not torch.manual_seed, which for each kind of device not in use formats a traceback
        # and keeps it: a third of an evaluation's time, and memory at each of its steps.
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def segments(real: TensorDict, rows: torch.Tensor, start: torch.Tensor, length: int) -> TensorDict:
    """The `length` transitions from each start on, [N, length].

    What lies behind the end of an episode belongs to the next one, and beyond the last step of a
    copy the last one is repeated.

    Args:
        real: Transitions [C, T].
        rows: Copies [N].
        start: First steps [N].
        length: Transitions of a segment.
    """
    steps = (start.unsqueeze(-1) + torch.arange(length)).clamp(max=real.shape[1] - 1)
    return real[rows.unsqueeze(-1), steps]
