"""The inputs of a function, by name: their hints and defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from llmasos_sdk.hints import Hint, hints_of, optional_if_none

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def signature_of(function: Callable[..., object], *, skip: int) -> tuple[dict[str, Hint], dict[str, object]]:
    """The hints and the defaults of a function's parameters, the first `skip` left out.

    Raises:
        TypeError: A parameter cannot be named, or has no hint.
    """
    name = getattr(function, "__name__", "the function")
    hints = _hints_of(function)
    taken: dict[str, Hint] = {}
    defaults: dict[str, object] = {}
    for parameter in list(inspect.signature(function).parameters.values())[skip:]:
        if parameter.kind not in NAMED:
            raise TypeError(f"{name}: the input {parameter.name!r} cannot be given by name; write it as a plain one")
        if parameter.name not in hints:
            raise TypeError(f"{name}: the input {parameter.name!r} needs a type hint, such as `{parameter.name}: str`")
        taken[parameter.name] = optional_if_none(hints[parameter.name], parameter.default)
        if parameter.default is not inspect.Parameter.empty:
            defaults[parameter.name] = parameter.default
    return taken, defaults


def result_of(function: Callable[..., object]) -> Hint:
    """The hint of what a function returns; `Any` if it has none."""
    return _hints_of(function).get("return", Any)


def _hints_of(function: Callable[..., object]) -> dict[str, Hint]:
    try:
        return hints_of(function)
    except NameError:
        # The context may be imported for type checkers alone. No input has its type, so it need not be there.
        original: Any = inspect.unwrap(function)
        return get_type_hints(original, localns={"Context": Any}, include_extras=True)
