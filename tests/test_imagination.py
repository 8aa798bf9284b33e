"""Branched rollouts against a naive loop over one rollout at a time."""

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl import imagination
from lit_mbrl.imagination import branched_rollouts


def act(observation: Tensor) -> Tensor:
    return (observation * 2).sin()


def step(observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A deterministic model that ends episodes whose second coordinate exceeds 1."""
    following = observation.roll(1, -1) + 0.9 * action
    return following, (observation * action).sum(-1), following[:, 1] > 1.0


def segments(number: int, k: int) -> TensorDict:
    """Chains of k real steps: each step's next observation is the next step's observation."""
    observations = torch.randn(number, k + 1, 2) * 0.5
    return TensorDict(
        {
            "observation": observations[:, :k],
            "action": torch.rand(number, k, 2) - 0.5,
            "reward": torch.randn(number, k),
            "next": {
                "observation": observations[:, 1:],
                "terminated": torch.zeros(number, k, dtype=torch.bool),
            },
        },
        batch_size=[number, k],
    )


def naive(segment: TensorDict, length: int) -> list[dict[str, Tensor]]:
    """The windows of one rollout."""
    k = segment.shape[0]
    states = [segment["observation"][m] for m in range(k)]
    actions = [segment["action"][m] for m in range(k - 1)]
    rewards = [segment["reward"][m] for m in range(k - 1)]
    windows = []
    for _ in range(length):
        action = act(states[-1])
        following, reward, ended = (x[0] for x in step(states[-1][None], action[None]))
        states.append(following)
        actions.append(action)
        rewards.append(reward)
        windows.append(
            {
                "observation": states[-1 - k],
                "action": torch.stack(actions[-k:]),
                "reward": torch.stack(rewards[-k:]),
                "next_observation": following,
                "terminated": ended,
            }
        )
        if ended:
            break
    return windows


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 3, 6])
def test_windows_equal_a_naive_loop(k: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real steps before the branch, terminations, and chunks that do not divide the rows."""
    torch.manual_seed(0)
    monkeypatch.setattr(imagination, "CHUNK", {"cpu": 7})
    real = segments(40, k)
    windows = branched_rollouts(real, length, act, step)
    expected = [window for segment in real.unbind(0) for window in naive(segment, length)]
    assert len(windows) == len(expected)
    if length > 1:
        assert len(windows) < 40 * length, "no branch ended early: the test would show nothing"

    def key(observation: Tensor, following: Tensor) -> tuple[float, ...]:
        return tuple(round(x, 4) for x in torch.cat([observation, following]).tolist())

    by_key = {key(w["observation"], w["next_observation"]): w for w in expected}
    assert len(by_key) == len(expected)
    for window in windows.unbind(0):
        following = window["next"]
        match = by_key.pop(key(window["observation"], following["observation"]))
        assert torch.allclose(window["action"], match["action"], atol=1e-6)
        assert torch.allclose(window["reward"], match["reward"], atol=1e-6)
        assert window["mask"].all()
        assert bool(following["terminated"]) == bool(match["terminated"])


def test_a_rollout_of_one_step_begins_its_window_in_a_real_state() -> None:
    real = segments(20, 3)
    windows = branched_rollouts(real, 1, act, step)
    assert torch.equal(windows["observation"], real["observation"][:, 0])
    assert torch.equal(windows["action"][:, :2], real["action"][:, :2])
    assert torch.equal(windows["action"][:, 2], act(real["observation"][:, 2]))


def test_all_branches_may_end_at_once() -> None:
    def end(observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return observation, observation[:, 0], torch.ones(len(observation), dtype=torch.bool)

    windows = branched_rollouts(segments(5, 2), 4, act, end)
    assert len(windows) == 5 and windows["next", "terminated"].all()


def test_predictions_that_are_not_finite_are_not_kept() -> None:
    def overflow(observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reward = torch.where(observation[:, 0] > 0, torch.inf, 0.0)
        return observation, reward, torch.zeros(len(observation), dtype=torch.bool)

    real = segments(40, 2)
    finite = int((real["observation"][:, -1, 0] <= 0).sum())
    windows = branched_rollouts(real, 3, act, overflow)
    assert 0 < finite < 40 and len(windows) == 3 * finite
    assert windows["reward"].isfinite().all()
