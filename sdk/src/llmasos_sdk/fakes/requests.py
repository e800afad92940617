"""Checks an app's requests by the host's rules: what the host refuses, a fake refuses."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, cast, get_args

from llmasos_sdk.errors import Invalid
from llmasos_sdk.model import Task, Tier

Check: TypeAlias = Callable[[Any], bool]


def _within(least: float, most: float) -> Check:
    return lambda value: (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and least <= value <= most
    )


def _whole(least: int, most: int) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _among(*names: str) -> Check:
    return lambda value: value in names


def _list_of(check: Check, *, least: int = 0, most: int = 2048) -> Check:
    def is_list(value: Any) -> bool:
        items = cast("list[Any]", value)
        return isinstance(value, list) and least <= len(items) <= most and all(check(each) for each in items)

    return is_list


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_turn(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    turn = cast("dict[str, Any]", value)
    content = turn.get("content")
    return turn.get("role") in {"system", "user", "assistant", "tool"} and isinstance(content, (str, list, type(None)))


def _is_tool(value: Any) -> bool:
    function = cast("dict[str, Any]", value).get("function") if isinstance(value, dict) else None
    return isinstance(function, dict) and _is_text(cast("dict[str, Any]", function).get("name"))


GENERATION: Final[Mapping[str, Check]] = {
    "messages": _list_of(_is_turn, least=1),
    "model": _is_text,
    "tier": _among(*get_args(Tier)),
    "task": _among(*get_args(Task)),
    "language": _is_text,
    "require_fit": _is_flag,
    "max_tokens": _whole(1, 1 << 30),
    "temperature": _within(0, 2),
    "top_p": lambda value: _within(0, 1)(value) and value > 0,
    "seed": _whole(-(1 << 63), (1 << 63) - 1),
    "stop": _list_of(lambda value: _is_text(value) and value != "", most=16),
    "tools": _list_of(_is_tool, most=128),
    "tool_choice": lambda value: _is_object(value) or value in ("auto", "none", "required"),
    "response_format": _is_object,
}
EMBEDDING: Final[Mapping[str, Check]] = {"input": _list_of(_is_text, least=1), "model": _is_text}
HTTP: Final[Mapping[str, Check]] = {
    "method": _among("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
    "url": lambda value: _is_text(value) and re.match(r"https?://[^/]", value) is not None,
    "headers": lambda value: _is_object(value) and all(_is_text(each) for each in value.values()),
    "body": _is_text,
    "base64": _is_flag,
}


def _checked(text: str, fields: Mapping[str, Check], needed: Iterable[str]) -> dict[str, Any]:
    request: object = json.loads(text)
    if not isinstance(request, dict):
        raise Invalid("The request is not valid: it is a JSON object.")
    given = cast("dict[str, Any]", request)
    for name, value in given.items():
        if name not in fields:
            raise Invalid(f"The request is not valid: {name}: there is no such field.")
        if not (value is None and name not in needed) and not fields[name](value):
            raise Invalid(f"The request is not valid: {name}: {value!r:.80} does not fit.")
    for name in needed:
        if name not in given:
            raise Invalid(f"The request is not valid: {name}: it is needed.")
    return given


def check_generation(text: str) -> dict[str, Any]:
    """A request of `model.generate` or `model.open`.

    Raises:
        Invalid: The host would refuse it.
    """
    return _checked(text, GENERATION, ("messages",))


def check_embedding(text: str) -> dict[str, Any]:
    """A request of `model.embed`.

    Raises:
        Invalid: The host would refuse it.
    """
    return _checked(text, EMBEDDING, ("input",))


def check_http(text: str) -> dict[str, Any]:
    """A request of `http.request`.

    Raises:
        Invalid: The host would refuse it.
    """
    return _checked(text, HTTP, ("method", "url"))
