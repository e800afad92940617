"""What Typer says of a command line that it cannot read, as messages. Typer itself speaks English only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from llmasos.i18n import Message, _, listing, template, verbatim

# Typer's sentences that are plain text, by their beginning or end. `about` is what they name.
_BEGINNINGS: Final = {
    "No such command ": template("No such command {about}"),
    "Got unexpected extra argument(s) ": template("Got unexpected extra arguments: {about}"),
}
_ENDINGS: Final = {
    " does not exist.": template("{about} does not exist"),
    " is a file.": template("{about} is a file"),
    " is a directory.": template("{about} is a directory"),
    " is not readable.": template("{about} is not readable"),
    " is not writable.": template("{about} is not writable"),
}


def explain(error: Any) -> Message:
    """What a `typer.TyperException` says."""
    match type(error).__name__:
        case "NoSuchOption":
            return _no_such_option(error.option_name, error.possibilities or ())
        case "MissingParameter":
            return _missing(error)
        case "BadParameter":
            hint = _hint(error)
            what = _what(error)
            return _("Invalid value for {hint}: {what}", hint=hint, what=what) if hint else what
        case "BadOptionUsage" if "does not take a value" in error.message:
            return _("Option {option!r} does not take a value", option=error.option_name)
        case "BadOptionUsage":
            return _("Option {option!r} requires an argument", option=error.option_name)
        case _:
            return _known(" ".join(error.format_message().split()))


def _no_such_option(option: str, possibilities: Iterable[str]) -> Message:
    known = sorted(possibilities)
    if known:
        return _("No such option: {option} (possible options: {known})", option=option, known=known)
    return _("No such option: {option}", option=option)


def _missing(error: Any) -> Message:
    kind = error.param_type or (error.param.param_type_name if error.param is not None else "parameter")
    hint = _hint(error)
    if kind == "option":
        return _("Missing option {hint}", hint=hint)
    return _("Missing argument {hint}", hint=hint)


def _hint(error: Any) -> str:
    """The parameter as a person writes it."""
    hint: Any = error.param_hint or (error.param.get_error_hint() if error.param is not None else "")
    return hint if isinstance(hint, str) else " / ".join(map(repr, hint))


def _what(error: Any) -> Message:
    """What is wrong with a value: pydantic's fault, which Typer converts values with, or Typer's own sentence."""
    cause: Any = error.__cause__
    if not hasattr(cause, "errors"):
        return _known(error.message)
    from llmasos.validation import misfit

    fault = cause.errors()[0]
    if fault["type"] == "value_error":  # of a choice
        value, __, choices = str(fault["ctx"]["error"]).rstrip(".").partition(" is not one of ")
        return _("{value} is not one of {choices}", value=value, choices=listing(choices.split(", ")))
    return _("{value!r}: {what}", value=str(fault["input"]), what=misfit(fault))


def _known(said: str) -> Message:
    for beginning, text in _BEGINNINGS.items():
        if said.startswith(beginning):
            return Message(text, {"about": said.removeprefix(beginning).rstrip(".").strip("()")})
    for ending, text in _ENDINGS.items():
        if said.endswith(ending):
            return Message(text, {"about": said.removesuffix(ending)})
    return verbatim(said)
