"""Types whose JSON is an object with known fields: dataclasses and TypedDicts."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args, get_origin

from llmasos_sdk import docstrings
from llmasos_sdk.files import File
from llmasos_sdk.hints import Hint, hints_of

QUALIFIERS = frozenset({"Required", "NotRequired", "ReadOnly"})


@dataclass(frozen=True, slots=True)
class Record:
    """A dataclass or a TypedDict."""

    cls: Any
    hints: Mapping[str, Hint]
    required: frozenset[str]
    defaults: Mapping[str, object]
    """The defaults of a dataclass's fields that have one."""
    factories: Mapping[str, Any]
    told: docstrings.Docstring

    @property
    def name(self) -> str:
        """The class's name."""
        return str(self.cls.__name__)

    def build(self, values: dict[str, Any]) -> Any:
        """The typed value of its fields' values."""
        return values if issubclass(self.cls, dict) else self.cls(**values)


def record_of(hint: Hint) -> Record | None:
    """The record that a hint names; None if it names something else."""
    if not isinstance(hint, type) or get_args(hint) or hint is File:
        return None
    if dataclasses.is_dataclass(hint):
        return _of_dataclass(hint)
    # Python's TypedDict and that of typing_extensions have no common class.
    if issubclass(hint, dict) and hasattr(cast("Any", hint), "__required_keys__"):
        return _of_typed_dict(cast("Any", hint))
    return None


def fields_of(cls: Any) -> list[dataclasses.Field[Any]]:
    """The fields that JSON carries: those that the constructor takes."""
    return [each for each in dataclasses.fields(cls) if each.init]


@functools.cache
def _of_dataclass(cls: type) -> Record:
    hints, fields, missing = hints_of(cls), fields_of(cls), dataclasses.MISSING
    told = docstrings.read(cls)
    # A dataclass without a docstring gets its own signature for one, which tells a reader nothing.
    if told.summary.startswith(f"{cls.__name__}("):
        told = dataclasses.replace(told, summary="")
    defaults = {each.name: each.default for each in fields if each.default is not missing}
    factories = {each.name: each.default_factory for each in fields if each.default_factory is not missing}
    required = frozenset(each.name for each in fields) - defaults.keys() - factories.keys()
    return Record(cls, {each.name: hints[each.name] for each in fields}, required, defaults, factories, told)


@functools.cache
def _of_typed_dict(cls: Any) -> Record:
    hints: dict[str, Hint] = {}
    # Of a postponed annotation, `__required_keys__` does not know whether it says NotRequired.
    required = set(cls.__required_keys__)
    for name, written in hints_of(cls).items():
        hint = written
        while (qualifier := getattr(get_origin(hint), "_name", "")) in QUALIFIERS:
            hint = get_args(hint)[0]
            if qualifier == "Required":
                required.add(name)
            elif qualifier == "NotRequired":
                required.discard(name)
        hints[name] = hint
    # Without a docstring of its own it would inherit that of `dict`.
    told = docstrings.read(cls) if inspect.cleandoc(cls.__doc__ or "") else docstrings.Docstring()
    return Record(cls, hints, frozenset(required), {}, {}, told)
