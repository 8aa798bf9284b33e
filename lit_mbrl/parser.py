"""The command line's parser, and its complaints in one readable line."""

import difflib
import inspect
import re
from typing import Any, NoReturn

from pytorch_lightning.cli import LightningArgumentParser


class Parser(LightningArgumentParser):
    """Lightning's parser, which reports a mistake in one readable line."""

    def add_subclass_arguments(self, *args: Any, **kwargs: Any) -> None:
        """Register the algorithm, as one that has to be given."""
        # With the default None it would be optional: jsonargparse would try None as well, and
        # report an algorithm's own error as one of two in the text of a third.
        super().add_subclass_arguments(*args, default=inspect.Parameter.empty, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise jsonargparse's error in our words."""
        super().error(readable(message, [action.dest for action in self._actions]), ex)


def readable(message: str, options: list[str]) -> str:
    """jsonargparse's nested message as `option: what is wrong`.

    The parser of an algorithm's own options reports first, and its text is passed through the
    whole command line's.

    Args:
        message: jsonargparse's.
        options: The names that the parser knows, for suggestions.
    """
    text = " ".join(message.split()).removeprefix("argument --")
    text = re.sub(r"<class '(\S+)'>", r"\1", text)
    # Of the complaints of a union, the one of the class that was meant; else all that is allowed.
    union = r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: "
    text = re.sub(union + r".*?(Problem with .*?)( - .*)? Given value type: .*", r"\2", text)
    text = re.sub(union + r".* Given value: (.*)", r"'\2' was given; allowed: \1", text)
    text = re.sub(r"Expected an? (\S+)\. Got value: (.*)", r"'\2' was given; allowed: \1", text)
    text = re.sub(r'Parser key "(\S+)": Problem with given class_path \S+ (?=\S+: )', r"\1.", text)
    allowed = "the dotted path of a class, such as lit_mbrl.algorithms.MPPVE"
    problem = r"Problem with given class_path ('.*?'): (.*)"
    text = re.sub(problem, rf"\1 was given (\2); allowed: {allowed}", text)
    text = re.sub(r"unhashable type: '(\w+)'", rf"a \1 was given; allowed: {allowed}", text)
    text = re.sub(r'Parser key "(\S+)": ', r"\1: ", text)
    text = re.sub(r"Option '(\S+)' is required.*", r"\1: missing; see --config and --help", text)
    text = re.sub(r"Group '(\S+)' does not accept option '(\S+)'", r"Option '\1.\2' is not", text)
    unknown = re.match(r"(?:Unrecognized arguments: -*|Option ')([^\s'=]+)", text)
    if unknown:
        close = difflib.get_close_matches(unknown[1], options, 1)
        advice = f"did you mean {close[0]}?" if close else "see --help"
        text = f"{unknown[1]}: no such option; {advice}"
    return text
