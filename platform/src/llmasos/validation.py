"""Words pydantic's validation errors as messages.

Pydantic's messages are in English only. The errors that our models can produce are listed here in its own words, to be
translated; a rare unlisted one keeps pydantic's sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from llmasos.i18n import Message, _, any_of, template

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Misfit(ValueError):
    """A fault that one of our own validators finds in a value."""

    def __init__(self, message: Message) -> None:
        """Say it."""
        super().__init__(message)
        self.message = message


_TEMPLATES: Final[Mapping[str, str]] = {
    "missing": template("is missing"),
    "extra_forbidden": template("there is no such field"),
    "string_type": template("must be a string"),
    "int_type": template("must be a whole number"),
    "int_parsing": template("must be a whole number"),
    "int_from_float": template("must be a whole number"),
    "float_type": template("must be a number"),
    "float_parsing": template("must be a number"),
    "finite_number": template("must be a finite number"),
    "bool_type": template("must be true or false"),
    "bool_parsing": template("must be true or false"),
    "list_type": template("must be an array"),
    "tuple_type": template("must be an array"),
    "dict_type": template("must be an object"),
    "model_type": template("must be an object"),
    "model_attributes_type": template("must be an object"),
    "json_invalid": template("is not valid JSON: {error}"),
    "literal_error": template("must be one of {expected}"),
    "enum": template("must be one of {expected}"),
    "union_tag_invalid": template("{tag} is none of {expected_tags}"),
    "greater_than": template("must be greater than {gt}"),
    "greater_than_equal": template("must be at least {ge}"),
    "less_than": template("must be less than {lt}"),
    "less_than_equal": template("must be at most {le}"),
    "string_too_short": template("must have at least {min_length} characters"),
    "string_too_long": template("must have at most {max_length} characters"),
    "too_short": template("must have at least {min_length} items"),
    "too_long": template("must have at most {max_length} items"),
    "string_pattern_mismatch": template("does not match {pattern}"),
}


def misfit(detail: ErrorDetails) -> Message:
    """Word one of pydantic's errors, as the end of a sentence that begins with the field's name."""
    context: Mapping[str, Any] = detail.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, Misfit):
        return cause.message
    known = _TEMPLATES.get(detail["type"])
    if known is None:
        return _("is not valid: {reason}", reason=detail["msg"])
    return Message(known, {name: _shown(name, value) for name, value in context.items()})


def _shown(name: str, value: Any) -> Message | str | int:
    if name == "expected":
        return any_of(str(value).replace(" or ", ", ").split(", "))
    # Formatted as by pydantic: a limit of 1.0 shows as 1.
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, int) else str(value)
