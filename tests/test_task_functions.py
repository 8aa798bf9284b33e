"""Functions of the user's own that say what ends an episode or what a step is worth."""

import re

import pytest
from torch import Tensor

from lit_mbrl.checks import check_functions
from lit_mbrl.errors import ConfigurationError

SIZES = {"observation_size": 3, "action_size": 1}


def of_each_number(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return following.abs() > 2


def of_the_first(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return following[..., 0].abs() > 2


def as_numbers(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return following[..., 0]


def one_dimension_left(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return following[..., :1]


def of_another_task(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return following[..., 7] > 2


def of_two(observation: Tensor, action: Tensor) -> Tensor:
    return observation[..., 0] > 2


def counted(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return (following > 2).sum(-1)


def of_a_number(observation: Tensor, action: Tensor, following: Tensor) -> float:
    return 1.0


def test_fit_functions_are_taken() -> None:
    own = {"termination": f"{__name__}.of_the_first", "reward": f"{__name__}.as_numbers"}
    check_functions({**SIZES, **own}, "Own-v0")
    check_functions({**SIZES, "termination": "learned", "reward": None}, "Own-v0")
    check_functions({"observation_size": 3, "action_size": 1}, "Own-v0")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("of_each_number", r"-> booleans \[...\]; of rows \[2, 3\] .* torch.bool \[2, 3, 3\]"),
        ("as_numbers", r"torch.float32 \[2, 3\]"),
        ("of_another_task", r"\(IndexError: .*, test_task_functions.py:\d+\)"),
        ("of_two", r"\(TypeError: .* 2 positional arguments but 3 were given\)"),
        ("counted", r"torch.int64 \[2, 3\]"),
        ("of_a_number", "it returned float"),
    ],
)
def test_unfit_terminations_are_refused_in_one_line(function: str, reason: str) -> None:
    """One of a wrong shape would train: every row would be told of another's end."""
    path = f"{__name__}.{function}"
    with pytest.raises(ConfigurationError, match=reason) as refusal:
        check_functions({**SIZES, "termination": path}, "Own-v0")
    line = str(refusal.value)
    assert re.fullmatch(f"data.termination: '{path}' was given.*; allowed: a function .*", line)


@pytest.mark.parametrize("function", ["one_dimension_left", "of_the_first", "of_two"])
def test_unfit_rewards_are_refused_in_one_line(function: str) -> None:
    with pytest.raises(ConfigurationError, match=r"model.reward: .*-> numbers"):
        check_functions({**SIZES, "reward": f"{__name__}.{function}"}, "Own-v0")
