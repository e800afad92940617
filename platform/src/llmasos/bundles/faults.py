"""What a reader of `llmapp.toml` is told about a fault: where, what, and the cure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `path` is the key as one would write it."""

    path: str
    what: str
    cure: str = ""

    def __str__(self) -> str:
        said = f"{self.path}: {self.what}" if self.path else self.what
        return f"{said}; {self.cure}" if self.cure else said


_TYPES = {
    "string_type": "a string in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": 'an array, such as ["…"]',
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def faults_of(error: ValidationError, model: type[BaseModel]) -> Iterator[Fault]:
    """The faults that pydantic found in data meant for `model`."""
    for detail in error.errors(include_url=False):
        yield _fault(detail, model)


def _fault(detail: ErrorDetails, model: type[BaseModel]) -> Fault:
    path, owner = _walk(detail["loc"], model)
    kind, value = detail["type"], detail["input"]
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(path, value, detail.get("ctx", {}))
    if kind == "extra_forbidden":
        return _unknown_key(path, owner)
    if kind in _TYPES:
        return Fault(path, f"it is {_said(value)}", f"write {_TYPES[kind]}")
    message = detail["msg"]
    return Fault(path, message[:1].lower() + message[1:])


def _unknown_capability(path: str, _value: object, context: Mapping[str, Any]) -> Fault:
    known = [name.strip(" '") for name in str(context["expected_tags"]).split(",")]
    tag = str(context["tag"])
    return Fault(f"{path}.capability", f"unknown capability {tag!r:.60}", _choose(tag, known))


def _no_capability(path: str, _value: object, _context: Mapping[str, Any]) -> Fault:
    return Fault(f"{path}.capability", "it is missing", 'say which, as in capability = "model"')


def _not_allowed(path: str, value: object, context: Mapping[str, Any]) -> Fault:
    return Fault(path, f"{value!r:.80} is not allowed", f"use {context['expected']}")


def _in_own_words(path: str, _value: object, context: Mapping[str, Any]) -> Fault:
    return Fault(path, str(context["error"]))


def _unknown_key(path: str, owner: type[BaseModel] | None) -> Fault:
    known = _keys(owner) if owner else []
    key = path.rsplit(".", 1)[-1]
    return Fault(path, "unknown key", _choose(key, known) if known else "remove it")


def _missing(path: str, _value: object, _context: Mapping[str, Any]) -> Fault:
    if path.endswith("reason"):
        return Fault(path, "it is missing", 'say why the app needs this, as in reason.en = "…"')
    if path.endswith(".en"):
        return Fault(
            path, "it is missing", f'add {path.rsplit(".", 2)[-2]}.en = "…"; English is what every reader gets'
        )
    if path == "schema":
        return Fault(path, "it is missing", "add schema = 1 at the top")
    return Fault(path, "it is missing", f"add {path.rsplit('.', 1)[-1]}")


def _mismatch(path: str, value: object, _context: Mapping[str, Any]) -> Fault:
    what = f"{value!r:.80} is not valid"
    if path == "id" or path.startswith(("dependencies", "permissions")):
        return Fault(
            path, what, "write publisher/name in lower-case letters, digits and single hyphens: acme/translator"
        )
    return Fault(path, what, "use lower-case letters and digits, beginning with a letter")


_SPECIAL: dict[str, Callable[[str, object, Mapping[str, Any]], Fault]] = {
    "missing": _missing,
    "union_tag_invalid": _unknown_capability,
    "union_tag_not_found": _no_capability,
    "literal_error": _not_allowed,
    "string_pattern_mismatch": _mismatch,
    "value_error": _in_own_words,
}


def _said(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "a table"
        case list():
            return "an array"
        case _:
            return f"{value!r:.80}"


def _choose(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given[:60], known, 1, cutoff=0.5)
    listed = ", ".join(sorted(known))
    return f"did you mean {near[0]!r}? Known: {listed}" if near else f"known: {listed}"


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _walk(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, type[BaseModel] | None]:
    """The path as an author writes it, and the model that its last key was looked up in.

    Pydantic puts the tag of a permission, and `[key]` for a fault in a key, among the steps: neither is one.
    """
    path = ""
    here: Any = model
    owner: type[BaseModel] | None = model
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
            here = _item(here)
            continue
        if step == "[key]":
            continue
        tagged = _tagged(here, step)
        if tagged is not None:
            here = tagged
            continue
        path += f".{_quoted(step)}" if path else _quoted(step)
        owner = _model(here)
        here = _field(owner, step) if owner else _item(here)
    return path, owner


def _quoted(key: str) -> str:
    shown = key if len(key) <= 80 else f"{key[:80]}…"
    return shown if shown.replace("-", "").replace("_", "").isalnum() else json.dumps(shown, ensure_ascii=False)


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is, `Annotated` and `| None` left out; a table or array of models is none."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    if hasattr(annotation, "__metadata__") or get_origin(annotation) in {Union, UnionType}:
        return next((model for part in get_args(annotation) if (model := _model(part))), None)
    return None


def _field(model: type[BaseModel], key: str) -> Any:
    for name, field in model.model_fields.items():
        if key == (field.alias or name):
            return field.annotation
    return None


def _item(annotation: Any) -> Any:
    """What an array or table of this type holds: the last of its parameters that is no `...`."""
    parameters = [a for a in get_args(annotation) if a is not Ellipsis]
    if hasattr(annotation, "__metadata__"):
        return _item(parameters[0])
    return parameters[-1] if parameters else None


def _flat(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield part
        yield from _flat(part)


def _tagged(annotation: Any, tag: str) -> type[BaseModel] | None:
    """The member of a union of models that `tag` names, where `annotation` is one."""
    models = [m for m in _flat(annotation) if isinstance(m, type) and issubclass(m, BaseModel)]
    if len(models) < 2:
        return None
    for member in models:
        capability = member.model_fields.get("capability")
        if capability is not None and get_args(capability.annotation) == (tag,):
            return member
    return None
