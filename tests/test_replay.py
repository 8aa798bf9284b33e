"""D_env and D_model against naive loops over the same episodes."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_mbrl.data import EnvironmentReplay, ImaginedReplay

S, A = 3, 2


@dataclass
class Step:
    observation: torch.Tensor
    action: torch.Tensor
    reward: float
    next_observation: torch.Tensor
    terminated: bool
    truncated: bool

    def frame(self) -> TensorDict:
        """The step as TorchRL's collector hands it over."""
        return TensorDict(
            {
                "observation": self.observation[None],
                "action": self.action[None],
                "next": {
                    "observation": self.next_observation[None],
                    "reward": torch.tensor([[self.reward]]),
                    "terminated": torch.tensor([[self.terminated]]),
                    "truncated": torch.tensor([[self.truncated]]),
                },
            },
            batch_size=[1],
        )


def episodes(seed: int, steps: int) -> list[Step]:
    """Random episodes of 1 to 8 steps, ended by a termination, a time limit or both at once."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)

    def vector(size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    made: list[Step] = []
    while len(made) < steps:
        length, observation = rng.randint(1, 8), vector(S)
        end = rng.choice([(True, False), (False, True), (True, True)])
        for i in range(length):
            following = vector(S)
            last = i == length - 1
            ends = end if last else (False, False)
            made.append(Step(observation, vector(A), rng.random(), following, *ends))
            observation = following
    return made[:steps]


def naive_windows(steps: list[Step], k: int, oldest: int) -> dict[int, dict[str, Any]]:
    """Every complete window that begins at step `oldest` or later, by walking along the steps."""
    windows: dict[int, dict[str, Any]] = {}
    for start in range(oldest, len(steps)):
        taken: list[Step] = []
        for step in steps[start : start + k]:
            taken.append(step)
            if step.terminated or step.truncated:
                break
        last = taken[-1]
        if len(taken) < k and not last.terminated:
            continue
        padding = k - len(taken)
        windows[start] = {
            "observation": taken[0].observation,
            "action": torch.stack([s.action for s in taken] + [torch.zeros(A)] * padding),
            "reward": torch.tensor([s.reward for s in taken] + [0.0] * padding),
            "mask": torch.tensor([True] * len(taken) + [False] * padding),
            "next_observation": last.next_observation,
            "terminated": last.terminated,
        }
    return windows


def assert_same_windows(windows: TensorDict, expected: dict[int, dict[str, Any]]) -> None:
    """All windows in the order of their starts, and those of `naive_windows`."""
    for row, start in enumerate(sorted(expected)):
        naive = expected[start]
        for key in ("observation", "action", "reward", "mask"):
            assert torch.equal(windows[key][row], naive[key]), (key, start)
        following = windows["next"][row]
        assert torch.equal(following["observation"], naive["next_observation"])
        assert bool(following["terminated"]) == naive["terminated"]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("capacity", [1000, 37])
def test_windows_equal_a_naive_loop(k: int, capacity: int) -> None:
    """All of them and no others: across terminations, time limits and the ring's end."""
    steps = episodes(seed=k, steps=150)
    replay = EnvironmentReplay(capacity, k)
    for number, step in enumerate(steps, start=1):
        replay.add(step.frame())
        if number % 29 and number != len(steps):
            continue
        expected = naive_windows(steps[:number], k, oldest=max(0, number - capacity))
        starts = replay.starts()
        assert starts.tolist() == sorted(expected)
        assert_same_windows(replay.windows(starts), expected)


def test_no_window_crosses_a_time_limit() -> None:
    """One long episode cut at step 10: only its first 8 steps start windows of three."""
    replay = EnvironmentReplay(100, 3)
    for i in range(20):
        observation = torch.full((S,), float(i))
        step = Step(observation, torch.zeros(A), 1.0, observation + 1, False, i in (9, 19))
        replay.add(step.frame())
    assert replay.starts().tolist() == [*range(8), *range(10, 18)]
    ends = replay.windows(replay.starts())["next", "observation"][:, 0]
    assert ends.tolist() == [*range(3, 11), *range(13, 21)]


def test_transitions_are_all_kept_in_order() -> None:
    """What the dynamics are fitted on: every step, also those that start no window."""
    steps = episodes(0, 60)
    replay = EnvironmentReplay(50, 3)
    for step in steps:
        replay.add(step.frame())
    transitions = replay.transitions()
    expected = torch.stack([s.observation for s in steps[-50:]])
    assert len(replay) == len(transitions) == 50
    assert torch.equal(transitions["observation"], expected)


@pytest.mark.parametrize("k", [1, 3])
def test_segments_have_no_end_before_their_last_step(k: int) -> None:
    steps = episodes(1, 120)
    replay = EnvironmentReplay(80, k)
    for step in steps:
        replay.add(step.frame())
    index = {tuple(s.observation.tolist()): i for i, s in enumerate(steps)}
    seen = set()
    segments = replay.sample_segments(2000)
    for row in segments["observation"]:
        first = index[tuple(row[0].tolist())]
        assert [index[tuple(o.tolist())] for o in row] == list(range(first, first + k))
        assert not any(s.terminated or s.truncated for s in steps[first : first + k - 1])
        seen.add(first)
    valid = {
        i
        for i in range(40, 121 - k)
        if not any(s.terminated or s.truncated for s in steps[i : i + k - 1])
    }
    assert seen == valid


def test_sampling_is_uniform() -> None:
    """Over the 100 window starts of a wrapped ring."""
    torch.manual_seed(0)
    replay = EnvironmentReplay(100, 1)
    for i in range(170):
        observation = torch.full((S,), float(i))
        replay.add(Step(observation, torch.zeros(A), 0.0, observation, False, False).frame())
    assert_uniform(replay.sample_windows(50_000)["observation"][:, 0].long() - 70, 100)


@pytest.mark.parametrize(("added", "kept"), [(60, 60), (170, 100)])
def test_sampling_of_imagined_windows_is_uniform(added: int, kept: int) -> None:
    """Over a buffer that is not full, and one that has wrapped and grown since."""
    torch.manual_seed(0)
    replay = ImaginedReplay()
    replay.resize(90)
    replay.extend(rows(0, added - 30))
    replay.resize(100)
    replay.extend(rows(added - 30, added))
    assert_uniform(replay.sample(50_000)["observation"].long() - (added - kept), kept)


def assert_uniform(drawn: torch.Tensor, values: int) -> None:
    """Chi-square of numbers below `values`, five deviations wide."""
    counts, expected = torch.bincount(drawn, minlength=values), len(drawn) / values
    assert counts.shape == (values,)
    statistic = ((counts - expected).square() / expected).sum().item()
    assert abs(statistic - (values - 1)) < 5 * (2 * (values - 1)) ** 0.5


def test_no_windows_have_their_shapes_too() -> None:
    """What an algorithm is given that learns nothing between two fits."""
    replay = EnvironmentReplay(100, 2)
    for step in episodes(seed=0, steps=20):
        replay.add(step.frame())
    windows = replay.sample_windows(0)
    assert windows["observation"].shape == (0, S)
    assert windows["action"].shape == (0, 2, A)


def test_what_was_complete_before_is_not_drawn_but_kept() -> None:
    replay, steps = EnvironmentReplay(1000, 1), episodes(seed=0, steps=50)
    for index, step in enumerate(steps):
        if index == 30:
            replay.draw_from_here()
        replay.add(step.frame())
    other = EnvironmentReplay(1000, 1)
    other.restore(replay.snapshot())
    for buffer in (replay, other):
        drawn = set(map(tuple, buffer.sample_windows(2000)["observation"].tolist()))
        assert drawn == {tuple(step.observation.tolist()) for step in steps[30:]}
        assert len(buffer.transitions()) == 50


def as_before(snapshot: dict[str, Any], steps: list[Step]) -> dict[str, Any]:
    """The snapshot of D_env as checkpoints had it while each entry was a tensor of its own."""
    before = {key: value for key, value in snapshot.items() if key != "layout"}
    capacity = snapshot["capacity"]
    ring = [steps[max(range(i, len(steps), capacity))] for i in range(min(len(steps), capacity))]
    rows = {
        "observation": torch.stack([step.observation for step in ring]),
        "action": torch.stack([step.action for step in ring]),
        "reward": torch.tensor([step.reward for step in ring]),
        "next": {
            "observation": torch.stack([step.next_observation for step in ring]),
            "terminated": torch.tensor([step.terminated for step in ring]),
        },
        "log_prob": torch.tensor([-step.reward for step in ring]),
    }
    return before | {"rows": rows}


def as_it_is(snapshot: dict[str, Any], steps: list[Step]) -> dict[str, Any]:
    return snapshot


@pytest.mark.parametrize("saved", [30, 50])
@pytest.mark.parametrize("version", [as_it_is, as_before])
def test_what_is_put_back_goes_on_where_it_was(
    version: Callable[[dict[str, Any], list[Step]], dict[str, Any]], saved: int
) -> None:
    """Full buffers too, whose oldest entries are the next to make room."""
    replay, steps = EnvironmentReplay(37, 2), episodes(seed=1, steps=120)
    for step in steps[:saved]:
        replay.add(step.frame(), torch.tensor([-step.reward]))
    other = EnvironmentReplay(37, 2)
    other.restore(version(replay.snapshot(), steps[:saved]))
    for buffer in (replay, other):
        for step in steps[saved:60]:
            buffer.add(step.frame(), torch.tensor([-step.reward]))
    expected = naive_windows(steps[:60], 2, oldest=60 - 37)
    kept = [steps[i].reward for i in range(60 - 37, 60)]
    for buffer in (replay, other):
        starts = buffer.starts()
        assert starts.tolist() == sorted(expected)
        windows = buffer.windows(starts)
        assert_same_windows(windows, expected)
        assert torch.equal(buffer.transitions()["log_prob"], -torch.tensor(kept))


def rows(first: int, last: int) -> TensorDict:
    return TensorDict({"observation": torch.arange(first, last).float()}, batch_size=[last - first])


def held(replay: ImaginedReplay) -> list[int]:
    return [int(x) for x in replay.windows()["observation"]]


def test_imagined_replay_keeps_the_newest_through_growing_and_shrinking() -> None:
    replay = ImaginedReplay()
    replay.resize(10)
    replay.extend(rows(0, 7))
    assert held(replay) == list(range(7))
    replay.extend(rows(7, 14))  # not flushed: the oldest make room
    assert held(replay) == list(range(4, 14))
    replay.resize(15)
    assert held(replay) == list(range(4, 14))
    replay.extend(rows(14, 22))
    assert held(replay) == list(range(7, 22))
    replay.resize(6)
    assert held(replay) == list(range(16, 22))
    replay.extend(rows(22, 24))
    assert held(replay) == list(range(18, 24))
    replay.extend(rows(24, 40))  # more than fit
    assert held(replay) == list(range(34, 40))
    assert set(replay.sample(300)["observation"].tolist()) == set(map(float, range(34, 40)))
    other = ImaginedReplay()
    other.restore(replay.snapshot())
    for buffer in (replay, other):
        buffer.extend(rows(40, 43))
        assert held(buffer) == list(range(37, 43))


def test_imagined_replay_refuses_rows_of_another_layout() -> None:
    """They would be read as if their numbers stood elsewhere; an empty one takes any."""
    replay = ImaginedReplay()
    replay.resize(10)
    replay.extend(rows(0, 7))
    with pytest.raises(AssertionError, match="another kind"):
        replay.extend(TensorDict({"reward": torch.zeros(3)}, batch_size=[3]))
    assert held(replay) == list(range(7))
