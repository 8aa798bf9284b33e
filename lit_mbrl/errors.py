"""The ways in which a user's mistake, a task's and a network's are reported."""

from typing import Any


class ConfigurationError(ValueError):
    """A value the user gave cannot be used; `fit` prints its one line and exits."""


def require(condition: bool, option: str, given: Any, allowed: str) -> None:
    """Raise a `ConfigurationError` that names the option, what was given and what is allowed.

    Args:
        condition: Whether the value is fit for use.
        option: The option as it is written on the command line, without the dashes.
        given: The value that was given.
        allowed: What would have been accepted, in words.

    Raises:
        ConfigurationError: If `condition` is false.
    """
    if not condition:
        raise ConfigurationError(f"{option}: {given!r} was given; allowed: {allowed}")


class TrainingError(Exception):
    """What ends a run that had begun; its message is one line."""


class TaskError(TrainingError):
    """The task raised an error, or returned what no task may; what was learned so far is good."""


class DivergenceError(TrainingError):
    """A network has become infinite or undefined; the last checkpoint is good, and is kept."""
