"""Transitions that no fit has seen: collected in copies of a task, read as segments."""

from typing import Any

import numpy as np
import pytest
import torch

from lit_mbrl.algorithms import MPPVE
from lit_mbrl.envs import make_gym_env
from lit_mbrl.held_out import collect, segments


@pytest.fixture(scope="module")
def pendulum() -> MPPVE:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_sizes": [16], "dynamics_hidden_sizes": [16]}
    decay: list[float] = [0.0, 0.0]
    ends = "lit_mbrl.envs.termination.inverted_pendulum"
    return MPPVE(4, 1, ends, dynamics_weight_decay=decay, **sizes)


def test_what_is_collected_is_what_the_task_does(pendulum: MPPVE) -> None:
    """Each episode, taken again in a copy that is put into its first state."""
    copies = [make_gym_env("InvertedPendulum-v5") for _ in range(2)]
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    real = collect(pendulum, copies, 100, seed=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    again = collect(pendulum, copies, 100, seed=3)
    assert (real == again).all()
    assert not (real["action"] == collect(pendulum, copies, 100, seed=4)["action"]).any()
    assert real.shape == (2, 100)
    following, done = real["next"], real["next", "done"]
    assert done[:, -1].all() and 4 < done.sum() < 60
    assert (following["terminated"] == done)[:, :-1].all()
    task: Any = copies[0].unwrapped
    copies[0].reset(seed=0)
    for row in range(2):
        for step in range(100):
            if step == 0 or done[row, step - 1]:
                state = real["observation"][row, step].double().numpy()
                task.set_state(state[:2], state[2:])
            else:
                before_it = following["observation"][row, step - 1]
                assert torch.equal(real["observation"][row, step], before_it)
            found = copies[0].step(real["action"][row, step].numpy())
            assert found[0] == pytest.approx(
                following["observation"][row, step].numpy(), abs=1e-4, rel=1e-3
            )
            assert found[1] == real["reward"][row, step]


def test_segments_are_consecutive(pendulum: MPPVE) -> None:
    real = collect(pendulum, [make_gym_env("InvertedPendulum-v5") for _ in range(2)], 20, seed=0)
    found = segments(real, torch.tensor([0, 1]), torch.tensor([5, 18]), 3)
    assert torch.equal(found["action"][0], real["action"][0, 5:8])
    assert torch.equal(found["action"][1], real["action"][1, [18, 19, 19]])
