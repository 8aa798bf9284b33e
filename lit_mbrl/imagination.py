"""Branched rollouts: short imagined continuations of real experience (MBPO, arXiv 1906.08253)."""

from collections.abc import Callable

import torch
from tensordict import TensorDict
from torch import Tensor

CHUNK = {"cpu": 10_000, "cuda": 2**18}
"""Rows imagined at a time: their activations stay in the processor's cache, or fill the GPU."""


@torch.no_grad()
def branched_rollouts(
    segments: TensorDict,
    length: int,
    act: Callable[[Tensor], Tensor],
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
) -> TensorDict:
    """Windows of k steps along rollouts that branch off real segments (paper 000, Alg. 1, l.6-8).

    A sequence begins with the first k - 1 real steps of its segment and goes on, from the last
    step's observation, with `length` imagined ones; every imagined step ends one window of the k
    steps up to it. So a rollout of one step already gives a window, whose first state is real. A
    branch ends where the model ends the episode; its windows up to there are kept. A step that the
    model predicts as infinite or undefined ends the branch too, and is not kept.

    Args:
        segments: Real segments [N, k], see `EnvironmentReplay.sample_segments`.
        length: Imagined steps of a rollout.
        act: The behaviour policy, [B, S] -> [B, A].
        step: The model's step, see `Dynamics.step`.

    Returns:
        Windows [M], M <= N length, see `windows_from`; all their steps are unmasked.
    """
    rows = CHUNK.get(segments["observation"].device.type, CHUNK["cpu"])
    chunks = [_rollouts(chunk, length, act, step) for chunk in segments.split(rows)]
    return torch.cat(chunks)


def _rollouts(
    segments: TensorDict,
    length: int,
    act: Callable[[Tensor], Tensor],
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
) -> TensorDict:
    observations = segments["observation"]  # the k states of the window that is being completed
    actions, rewards = segments["action"][:, :-1], segments["reward"][:, :-1]
    windows = []
    for imagined in range(1, length + 1):
        action = act(observations[:, -1])
        next_observation, reward, terminated = step(observations[:, -1], action)
        finite = next_observation.isfinite().all(-1) & reward.isfinite()
        actions = torch.cat([actions, action.unsqueeze(1)], 1)
        rewards = torch.cat([rewards, reward.unsqueeze(1)], 1)
        window = TensorDict(
            {
                "observation": observations[:, 0],
                "action": actions,
                "reward": rewards,
                "mask": torch.ones_like(rewards, dtype=torch.bool),
                "next": {"observation": next_observation, "terminated": terminated},
            },
            batch_size=[len(action)],
            device=segments.device,
        )
        # Rows by their numbers, which a GPU is asked for once, and not by masks, once an entry.
        kept = finite.nonzero().squeeze(1)
        windows.append(window if len(kept) == len(window) else window[kept])
        if imagined == length:
            break
        alive = (finite & ~terminated).nonzero().squeeze(1)
        if not len(alive):
            break
        observations = torch.cat([observations, next_observation.unsqueeze(1)], 1)[alive, 1:]
        actions, rewards = actions[alive, 1:], rewards[alive, 1:]
    return torch.cat(windows)
