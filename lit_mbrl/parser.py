"""The command line's parser, and its complaints in one readable line."""

import difflib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, Namespace, get_loader, set_loader
from pytorch_lightning.cli import LightningArgumentParser

from lit_mbrl import algorithms, planning
from lit_mbrl.errors import ConfigurationError, TrainingError, one_line, require

NEGATIVE_NUMBER = re.compile(r"^-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE)

FROM_TASK = {
    "observation_size": "observation_size",
    "action_size": "action_size",
    "termination_path": "termination",
}
"""What the data module finds out of the task, and the option of an algorithm that takes it."""

SEQUENCE = "collections.abc.Sequence"

BASE = "lit_mbrl.algorithms.Agent"
"""What jsonargparse takes a model for whose class nobody gave."""

NO_ALGORITHM = (
    "model.class_path: missing; an algorithm comes before its options, see --config and --help"
)


class Parser(LightningArgumentParser):
    """Lightning's parser, which reports a mistake in one readable line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # argparse takes -1e-2 for an option of that name.
        self._negative_number_matcher = NEGATIVE_NUMBER

    def add_subclass_arguments(self, *args: Any, **kwargs: Any) -> None:
        """Register the algorithm, as one that has to be given."""
        # With the default None it would be optional: jsonargparse would try None as well, and
        # report an algorithm's own error as one of two in the text of a third.
        super().add_subclass_arguments(*args, default=inspect.Parameter.empty, **kwargs)

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Parse a configuration file.

        Raises:
            ArgumentError: If one of its options cannot be used.
            ConfigurationError: If it is not YAML, or gives an option twice.
        """
        try:
            load(Path(cfg_path).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"config: {str(cfg_path)!r} was given ({readable(str(error), [])}); allowed: YAML "
                "in UTF-8, each option once"
            ) from error
        return super().parse_path(cfg_path, *args, **kwargs)

    def format_help(self) -> str:
        """The help, with the types by their names."""
        return re.sub(r"<class\s+'([\w.]+)'>", r"\1", super().format_help())

    def instantiate_classes(self, *args: Any, **kwargs: Any) -> Any:
        """Make what the options describe.

        Raises:
            ConfigurationError: Also if that is optional, of which jsonargparse would say that it is
                neither None nor a class that can be made.
        """
        try:
            return super().instantiate_classes(*args, **kwargs)
        except ValueError as error:
            found = re.search(r"- (\S+: .* was given.*; allowed: .*)", str(error))
            optional = not isinstance(error, ConfigurationError)
            text = str(error) if not optional else found and found[1]
            if text is None:
                raise
            # A planner does not know whose it is: an evaluation's is optional, an algorithm's not.
            owner = "evaluation" if optional else "model"
            if owner in {action.dest.partition(".")[0] for action in self._actions}:
                text = re.sub(r"(?<![\w.])planner\.", f"{owner}.planner.", text)
            raise ConfigurationError(text) from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise jsonargparse's error in our words."""
        super().error(readable(message, [action.dest for action in self._actions]), ex)


def command(
    function: Callable[..., None], parser: Parser, arguments: list[str] | None = None
) -> int:
    """Call a function with the options of its command line.

    Args:
        function: Its parameters have the names of the options.
        parser: With these options.
        arguments: The command line's; those of the process if None.

    Returns:
        The exit status: 0, 1 if the task failed, 2 if what was given cannot be used; of both of
        which one line tells.
    """
    try:
        options = parser.parse_args(arguments)
        refuse_nulls(options, function)
        function(**parser.instantiate_classes(options).as_dict())
    except (ArgumentError, ConfigurationError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    except TrainingError as error:
        print("error:", one_line(error), file=sys.stderr)
        return 1
    return 0


class UniqueKeys(yaml.BaseLoader):
    """Refuses a key that is given twice, of which YAML's loaders forget the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """PyYAML's hook."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"{key.value} was given twice, again in line {line}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(text: str) -> Any:
    """jsonargparse's loading of YAML, after a look at the keys."""
    loaded = load_yaml(text)
    yaml.load(text, UniqueKeys)  # makes nothing but dictionaries, lists and strings
    return loaded


def refuse_nulls(options: Namespace, maker: Callable[..., Any], owner: str = "") -> None:
    """Check that nothing is null that must not be: jsonargparse lets that pass in many places.

    Args:
        options: What `maker` is called with. Of classes among them, with a `class_path`, the
            options are checked likewise.
        maker: A class or a function. One whose annotations Python cannot resolve is not checked.
        owner: What stands before the options' names on the command line, with its dot.

    Raises:
        ConfigurationError: If an option is null whose type and default are not.
    """
    try:
        hints = get_type_hints(maker.__init__ if inspect.isclass(maker) else maker)
    except (AttributeError, NameError, TypeError):
        hints = {}
    parameters = inspect.signature(maker).parameters
    for name, value in vars(options).items():
        if isinstance(value, Namespace) and "class_path" in value:
            inner = value.get("init_args") or Namespace()
            refuse_nulls(inner, resolve_name(value["class_path"]), f"{owner}{name}.")
        if value is not None or name in FROM_TASK.values():
            continue
        hint = hints.get(name, Any)
        typed_so = hint is Any or None in get_args(hint) or NoneType in get_args(hint)
        by_default = name not in parameters or parameters[name].default is None
        require(typed_so or by_default, f"{owner}{name}", None, type_name(hint))


def type_name(hint: Any) -> str:
    """What an option takes, in the words of `readable`."""
    if get_origin(hint) is Literal:
        return ", ".join(map(repr, get_args(hint)))
    return re.sub(r"<class '(\S+)'>", r"\1", str(hint)).replace(SEQUENCE, "a list")


load_yaml = get_loader("yaml")
set_loader("yaml", load, exceptions=(yaml.YAMLError,))


def readable(message: str, options: list[str]) -> str:
    """jsonargparse's nested message as `option: what is wrong`.

    The parser of an algorithm's own options reports first, and its text is passed through the
    whole command line's.

    Args:
        message: jsonargparse's.
        options: The names that the parser knows, for suggestions.
    """
    text = " ".join(message.split()).removeprefix("argument --")
    text = text.replace(' in "<unicode string>",', ",")
    if f"Problem with given class_path '{BASE}'" in text:
        return NO_ALGORITHM
    text = re.sub(r"<class '(\S+)'>", r"\1", text)
    no_class = r"- Expected a path but .* - Expected a dot import path string: (\S+)( Given .*)?"
    text = re.sub(no_class, lambda found: _no_class(found[1]), text)
    # Of the complaints of a union, the one of the class that was meant; else all that is allowed.
    union = r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: "
    text = re.sub(union + r".*?(Problem with .*?)( - .*)? Given value type: .*", r"\2", text)
    text = re.sub(union + r".* Given value: (.*)", r"'\2' was given; allowed: \1", text)
    choice = r"Expected a typing\.Literal\[(.*?)\]\. Got value: (.*)"
    text = re.sub(choice, r"'\2' was given; allowed: \1", text)
    text = re.sub(r"Expected an? (\S+)\. Got value: (.*)", r"'\2' was given; allowed: \1", text)
    nested = r'Parser key "(\S+)": Problem with given class_path \S+ '
    text = re.sub(nested + r"(\S+: no such option; did you mean )", r"\1.\2\1.", text)
    text = re.sub(nested + r"(?=\S+: )", r"\1.", text)
    allowed = "the dotted path of a class, such as lit_mbrl.algorithms.MPPVE"
    problem = r"Problem with given class_path ('.*?'): (.*)"
    text = re.sub(problem, rf"\1 was given (\2); allowed: {allowed}", text)
    text = re.sub(r"unhashable type: '(\w+)'", rf"a \1 was given; allowed: {allowed}", text)
    text = re.sub(r'Parser key "(\S+)": ', r"\1: ", text)
    text = text.replace(SEQUENCE, "a list").replace("NoneType", "null")
    help_ = "--config and --help" if "config" in options else "--help"
    text = re.sub(r"Option '(\S+)' is required.*", rf"\1: missing; see {help_}", text)
    text = re.sub(r"Group '(\S+)' does not accept option '(\S+)'", r"Option '\1.\2' is not", text)
    unknown = re.match(r"(?:Unrecognized arguments: -*|Option ')([^\s'=]+)", text)
    if unknown:
        close = difflib.get_close_matches(unknown[1], options, 1)
        advice = f"did you mean {close[0]}?" if close else "see --help"
        text = f"{unknown[1]}: no such option; {advice}"
    return text


def _no_class(name: str) -> str:
    """Of a name that is no class's, what may stand there and what was perhaps meant."""
    close = difflib.get_close_matches(name, [*algorithms.__all__, *planning.__all__], 1, cutoff=0.5)
    advice = f"; did you mean {close[0]}?" if close else ""
    return f"{name!r} was given; allowed: the dotted path of a class{advice}"
