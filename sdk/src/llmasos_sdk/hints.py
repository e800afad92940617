"""The type hints of functions and dataclasses."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

Hint: TypeAlias = Any  # a type hint has no type of its own


@functools.cache
def hints_of(documented: Any) -> dict[str, Hint]:
    """The resolved hints of a function or class, `Annotated` kept."""
    hints = get_type_hints(documented, include_extras=True)
    if dataclasses.is_dataclass(documented):
        for each in dataclasses.fields(documented):
            hints[each.name] = optional_if_none(hints[each.name], each.default)
    return hints


def optional_if_none(hint: Hint, default: object) -> Hint:
    """The hint, as an Optional if None is the default: `x: str = None` means `x: str | None = None`."""
    arguments = get_args(hint)
    if default is not None or hint in (Any, None, type(None)) or type(None) in arguments:
        return hint
    origin: object = get_origin(hint)
    if origin is typing.Annotated:
        inner, *notes = arguments
        return typing.Annotated[(optional_if_none(inner, None), *notes)]
    return typing.Optional[hint]  # noqa: UP045 - a forward reference takes no bar
