"""Checks of plugins' results: each returns the typed result of a hook, or raises `WrongResult`.

Checks run inside the same containment as the plugin: reading an attribute of a plugin's object may raise anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar, cast

from pydantic import ValidationError

from llmasos.gateway.guard import TextFilter
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.request import GenerateRequest
from llmasos.gateway.routing import Choice
from llmasos.hooks import ReleaseFinding
from llmasos.kernel.capability import Capability, ContractFunction
from llmasos.runtimes.runtime import RuntimeKind

T = TypeVar("T")
Check = Callable[[object], T]

_CAPABILITY: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
_COMMAND: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TARGET: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class WrongResult(Exception):
    """A hook returned a value that it may not return; the message says what is allowed."""


def text(value: object) -> str:
    """Check for a string."""
    return _of(str, value, "a string")


def nothing(value: object) -> None:
    """Check for None, which observers return."""
    raise WrongResult(f"it returned {_kind(value)}; an observer returns nothing")


def models(value: object) -> list[ModelEntry]:
    """Check for models."""
    return _list_of(ModelEntry, value, "a list of ModelEntry")


def findings(value: object) -> list[ReleaseFinding]:
    """Check for findings of a release check."""
    found = _list_of(ReleaseFinding, value, "a list of ReleaseFinding")
    for each in found:
        _of(str, each.message, "a ReleaseFinding with a string as its message")
        _of(bool, each.blocks, "a ReleaseFinding whose `blocks` is a bool")
    return found


def choice_among(known: Mapping[str, ModelEntry]) -> Check[Choice]:
    """Check for a choice of a chat model among the hook's `models`."""

    def check(value: object) -> Choice:
        choice = _of(Choice, value, "a Choice")
        entry = _of(ModelEntry, choice.entry, "a Choice of a ModelEntry")
        _list_of(str, choice.notices, "a Choice with strings as its notices")
        if known.get(entry.name) != entry or entry.kind != "chat":
            raise WrongResult(f"it chose {entry.name!r}, which is no chat model among those it was given")
        return choice

    return check


def request(value: object) -> GenerateRequest:
    """Check for a request, and validate it again, since `model_copy` accepts any value."""
    changed = _of(GenerateRequest, value, "a GenerateRequest")
    try:
        return GenerateRequest.model_validate(changed.model_dump(by_alias=True, exclude_unset=True))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise WrongResult(f"it returned a request that is not valid: {where}: {fault['msg']}") from None


def text_filter(value: object) -> TextFilter:
    """Check for an object with `feed` and `finish`."""
    _callable(value, ("feed", "finish"), "a filter with the methods feed and finish")
    return cast(TextFilter, value)


def capability(value: object) -> Capability:
    """Check for a capability: its name, its contract, whether it is audited, and `prepare`."""
    _callable(value, ("prepare",), "a Capability")
    found = cast(Capability, value)
    name = _of(str, found.name, "a Capability with a string as its name")
    if not _CAPABILITY.fullmatch(name):
        raise WrongResult(f"the capability's name {name[:80]!r} is not lower-case letters, digits and hyphens")
    contract = cast(object, found.contract)  # this checks the protocol at run time
    if not isinstance(contract, Mapping):
        raise WrongResult("the capability's contract is no mapping of functions")
    for function, codec in cast("Mapping[object, object]", contract).items():
        _of(str, function, "a Capability whose functions have strings as names")
        _of(ContractFunction, codec, "a Capability whose contract maps names to ContractFunctions")
    _of(bool, found.audited, "a Capability whose `audited` is a bool")
    return found


def runtime_kind(value: object) -> RuntimeKind:
    """Check for a runtime and its kind."""
    found = _of(RuntimeKind, value, "a RuntimeKind")
    _of(str, found.kind, "a RuntimeKind with a string as its kind")
    _callable(found, ("make",), "a RuntimeKind with a function `make`")
    return found


def commands(value: object) -> dict[str, str]:
    """Check for commands by name, each "module:function"."""
    if not isinstance(value, Mapping):
        raise WrongResult(f"it returned {_kind(value)}, not a mapping of command names")
    found: dict[str, str] = {}
    for name, target in cast(Mapping[object, object], value).items():
        if not isinstance(name, str) or not _COMMAND.fullmatch(name):
            raise WrongResult(f"{name!r} is no name for a command: use lower-case letters, digits and hyphens")
        if not isinstance(target, str) or not _TARGET.fullmatch(target):
            raise WrongResult(f'the command {name} names {target!r}, not "module:function"')
        found[name] = target
    return found


def _of(cls: type[T], value: object, expected: str) -> T:
    if isinstance(value, cls):
        return value
    raise WrongResult(f"it returned {_kind(value)}, not {expected}")


def _list_of(cls: type[T], value: object, expected: str) -> list[T]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise WrongResult(f"it returned {_kind(value)}, not {expected}")
    return [_of(cls, item, expected) for item in cast(Iterable[object], value)]


def _callable(value: object, names: tuple[str, ...], expected: str) -> None:
    if isinstance(value, type) or not all(callable(getattr(value, name, None)) for name in names):
        raise WrongResult(f"it returned {_kind(value)}, not {expected}")


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
