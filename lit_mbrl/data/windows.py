"""A window: a state, the plan that was taken there, and where it led."""

import torch
from tensordict import TensorDict


def windows_from(segments: TensorDict, with_path: bool = False) -> TensorDict:
    """Windows of k steps from segments of k consecutive transitions.

    What follows the first termination within a segment belongs to another episode: its actions
    and rewards become zero and the window's next observation is the terminal one. A time limit
    must not lie within a segment, except at its last step; `EnvironmentReplay` sees to it.

    Args:
        segments: [N, k] with `observation` [N, k, S], `action` [N, k, A], `reward` [N, k],
            `("next", "observation")` [N, k, S] and `("next", "terminated")` [N, k]; `log_prob`
            [N, k], of the actions under the policy that took them, where that is kept.
        with_path: Whether the windows have all the states on their way.

    Returns:
        [N] with `observation` [N, S], `action` [N, k, A], `reward` [N, k], `mask` [N, k] (true up
        to and with the first termination), `("next", "observation")` [N, S] and
        `("next", "terminated")` [N]; `log_prob` [N, k] where the segments have it; and `path`
        [N, k + 1, S], s_t to s_{t+k}, if asked for. Behind a termination these two mean nothing.
    """
    terminated = segments["next", "terminated"]
    ended_before = terminated.cumsum(1) - terminated.long()
    mask = ended_before == 0
    last = mask.sum(1) - 1
    rows = torch.arange(len(segments), device=last.device)
    windows = TensorDict(
        {
            "observation": segments["observation"][:, 0],
            "action": segments["action"] * mask.unsqueeze(-1),
            "reward": segments["reward"] * mask,
            "mask": mask,
            "next": {
                "observation": segments["next", "observation"][rows, last],
                "terminated": terminated.any(1),
            },
        },
        batch_size=segments.batch_size[:1],
        device=segments.device,
    )
    if (log_prob := segments.get("log_prob", None)) is not None:
        windows["log_prob"] = log_prob
    if with_path:
        first, following = segments["observation"][:, :1], segments["next", "observation"]
        windows["path"] = torch.cat([first, following], 1)
    return windows
