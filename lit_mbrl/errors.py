"""The ways in which a user's mistake, a task's and a network's are reported."""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any


def one_line(value: object) -> str:
    """What it is as text, on one line."""
    return " ".join(str(value).split())


def first_line(error: BaseException) -> str:
    """What an error says first, its class's name if it says nothing: some go on for a page."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def cause(error: BaseException) -> str:
    """What went wrong in the user's own code, and where: `IndexError: too many, my_task.py:7`."""
    others = (str(Path(__file__).parent), sys.prefix, sys.base_prefix, "<")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(others)]
    where = f", {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    return f"{type(error).__name__}: {first_line(error)}{where}"


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


@contextmanager
def writing(option: str, path: object, allowed: str) -> Iterator[None]:
    """Where something is written that the user gave the path of.

    Args:
        option: As for `require`.
        path: Of the file or the folder.
        allowed: As for `require`.

    Raises:
        ConfigurationError: If it cannot be.
    """
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{option}: {str(path)!r} was given ({error.strerror}); allowed: {allowed}"
        ) from error


def import_function(option: str, path: str, allowed: str) -> Callable[..., Any]:
    """Import a function that the user named.

    A module of the user's own is found as Python finds any other: on the path, which contains the
    working directory when Python is started with `-m`.

    Args:
        option: As for `require`.
        path: Dotted path of the function.
        allowed: As for `require`.

    Raises:
        ConfigurationError: If nothing can be imported from there, or it cannot be called.
    """
    module, _, name = path.rpartition(".")
    try:
        function: Callable[..., Any] | None = getattr(import_module(module), name, None)
    # `import_module` refuses a relative name with a TypeError, an empty one with a ValueError.
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{option}: {path!r} was given ({one_line(error)}); allowed: {allowed}"
        ) from error
    except Exception as error:  # of any kind: it is the user's module
        raise ConfigurationError(
            f"{option}: {path!r} was given ({cause(error)}); allowed: {allowed}"
        ) from error
    if not callable(function):
        raise ConfigurationError(f"{option}: {path!r} was given; allowed: {allowed}")
    return function


class TrainingError(Exception):
    """What ends a run that had begun; its message is one line."""


class TaskError(TrainingError):
    """The task raised an error, or returned what no task may; what was learned so far is good."""


class DivergenceError(TrainingError):
    """A network has become infinite or undefined; the last checkpoint is good, and is kept."""
