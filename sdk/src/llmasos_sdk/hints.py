"""The type hints of functions and dataclasses."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, TypeAlias, Union, get_args, get_origin, get_type_hints

Hint: TypeAlias = Any  # a type hint has no type of its own

UNIONS: tuple[object, ...] = (Union, types.UnionType)
# More aliases of aliases than anybody writes. `type X = X` never ends.
MAX_ALIASES = 32


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
    if origin_of(hint) is typing.Annotated:
        inner, *notes = arguments
        return typing.Annotated[(optional_if_none(inner, None), *notes)]
    return typing.Optional[hint]  # noqa: UP045 - a forward reference takes no bar


def origin_of(hint: Hint) -> object:
    """What `get_origin` returns, which its own hint names too narrowly."""
    return get_origin(hint)


def name_of(hint: Hint) -> str:
    """The hint as its author wrote it, as far as Python keeps that."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def aliased(hint: Hint) -> Hint | None:
    """The type that `type X = ...` or a NewType stands for; None if the hint is neither."""
    if isinstance(hint, typing.NewType):
        return hint.__supertype__
    alias: Any = get_origin(hint) or hint
    # Python has this class from 3.12 on, and typing_extensions its own.
    if type(alias).__name__ != "TypeAliasType":
        return None
    if alias is hint:
        return alias.__value__
    arguments = dict(zip(alias.__type_params__, get_args(hint), strict=True))
    value = alias.__value__
    parameters: tuple[Any, ...] = getattr(value, "__parameters__", ())
    return value[tuple(arguments[each] for each in parameters)] if parameters else arguments.get(value, value)


def resolved(hint: Hint) -> Hint:
    """The hint with its aliases followed.

    Raises:
        TypeError: They never end.
    """
    for _ in range(MAX_ALIASES):
        target = aliased(hint)
        if target is None:
            return type(None) if hint is None else hint
        hint = target
    raise TypeError(f"{name_of(hint)} is an alias of itself")


def bare(hint: Hint) -> Hint:
    """The hint without aliases and without `Annotated`."""
    hint = resolved(hint)
    while origin_of(hint) is typing.Annotated:
        hint = resolved(get_args(hint)[0])
    return hint


def members_of(hint: Hint, depth: int = MAX_ALIASES) -> list[Hint]:
    """The members of a union, unions inside it and aliases followed; of another hint, itself.

    Raises:
        TypeError: An alias stands for a union with itself.
    """
    hint = resolved(hint)
    if get_origin(hint) not in UNIONS:
        return [hint]
    if depth == 0:
        raise TypeError(f"{name_of(hint)} is a union with itself")
    members: list[Hint] = []
    for argument in get_args(hint):
        members += [each for each in members_of(argument, depth - 1) if each not in members]
    return members


def alternatives_of(hint: Hint) -> list[Hint]:
    """The members of a union, each without `Annotated`."""
    found: list[Hint] = []
    for member in members_of(hint):
        inner = bare(member)
        found += [inner] if inner is member else alternatives_of(inner)
    return found


def list_item(hint: Hint) -> Hint | None:
    """What a list holds: `T` of `list[T]`, `Any` of `list`; None if the hint is no list."""
    if (origin_of(hint) or hint) is not list:
        return None
    arguments: tuple[Hint, ...] = get_args(hint) or (Any,)
    return _typed(arguments[0])


def dict_value(hint: Hint) -> Hint | None:
    """What a dict holds: `T` of `dict[str, T]`, `Any` of `dict`; None if the hint is no such dict."""
    if (origin_of(hint) or hint) is not dict:
        return None
    arguments: tuple[Hint, ...] = get_args(hint) or (str, Any)
    return _typed(arguments[1]) if resolved(arguments[0]) is str else None


def _typed(argument: Hint) -> Hint:
    """An argument of a hint; in `list[None]` None stands for its type."""
    return type(None) if argument is None else argument
