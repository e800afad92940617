"""Faults of `llmapp.toml`, for its author: the key, what is wrong, and the cure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llmasos.i18n import Message, _, any_of, listing, verbatim
from llmasos.validation import Misfit, misfit

_MISSING: Final = _("it is missing")


@dataclass(frozen=True, slots=True)
class ManifestFault:
    """One fault: `path` is the key as an author writes it."""

    path: str
    what: Message
    cure: Message | None = None

    @property
    def message(self) -> Message:
        """The fault on one line."""
        said = _("{path}: {what}", path=self.path, what=self.what) if self.path else self.what
        return _("{said}; {cure}", said=said, cure=self.cure) if self.cure else said


_TYPES = {
    "string_type": _("a string in quotes"),
    "int_type": _("a whole number"),
    "float_type": _("a number"),
    "bool_type": _("true or false"),
    "tuple_type": _('an array, such as ["…"]'),
    "dict_type": _("a table"),
    "model_type": _("a table"),
    "model_attributes_type": _("a table"),
}


def faults_of(error: ValidationError, model: type[BaseModel]) -> Iterator[ManifestFault]:
    """Convert the faults that pydantic found in data for `model`."""
    for detail in error.errors(include_url=False):
        yield _fault(detail, model)


def _fault(detail: ErrorDetails, model: type[BaseModel]) -> ManifestFault:
    path, owner = _walk(detail["loc"], model)
    kind, value = detail["type"], detail["input"]
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(path, value, detail.get("ctx", {}))
    if kind == "extra_forbidden":
        return _unknown_key(path, owner)
    if kind in _TYPES:
        return ManifestFault(path, _("it is {said}", said=_said(value)), _("write {wanted}", wanted=_TYPES[kind]))
    return ManifestFault(path, misfit(detail))


def _unknown_capability(path: str, _value: object, context: Mapping[str, Any]) -> ManifestFault:
    known = [name.strip(" '") for name in str(context["expected_tags"]).split(",")]
    tag = str(context["tag"])
    return ManifestFault(f"{path}.capability", _("unknown capability {tag}", tag=f"{tag!r:.60}"), _choose(tag, known))


def _no_capability(path: str, _value: object, _context: Mapping[str, Any]) -> ManifestFault:
    cure = _('say which, as in capability = "model"')
    return ManifestFault(f"{path}.capability", _MISSING, cure)


def _not_allowed(path: str, value: object, context: Mapping[str, Any]) -> ManifestFault:
    choices = any_of(str(context["expected"]).replace(" or ", ", ").split(", "))
    what = _("{value} is not allowed", value=f"{value!r:.80}")
    return ManifestFault(path, what, _("use {choices}", choices=choices))


def _in_own_words(path: str, _value: object, context: Mapping[str, Any]) -> ManifestFault:
    error = context["error"]
    return ManifestFault(path, error.message if isinstance(error, Misfit) else verbatim(str(error)))


def _unknown_key(path: str, owner: type[BaseModel] | None) -> ManifestFault:
    known = _keys(owner) if owner else []
    key = path.rsplit(".", 1)[-1]
    return ManifestFault(path, _("unknown key"), _choose(key, known) if known else _("remove it"))


def _missing(path: str, _value: object, _context: Mapping[str, Any]) -> ManifestFault:
    if path.endswith("reason"):
        cure = _('say why the app needs this, as in reason.en = "…"')
        return ManifestFault(path, _MISSING, cure)
    if path.endswith(".en"):
        key = path.rsplit(".", 2)[-2]
        cure = _('add {key}.en = "…"; English is what every reader gets', key=key)
        return ManifestFault(path, _MISSING, cure)
    if path == "schema":
        return ManifestFault(path, _MISSING, _("add schema = 1 at the top"))
    key = path.rsplit(".", 1)[-1]
    return ManifestFault(path, _MISSING, _("add {key}", key=key))


def _mismatch(path: str, value: object, _context: Mapping[str, Any]) -> ManifestFault:
    what = _("{value} is not valid", value=f"{value!r:.80}")
    if path == "id" or path.startswith(("dependencies", "permissions")):
        cure = _("write publisher/name in lower-case letters, digits and single hyphens: acme/translator")
        return ManifestFault(path, what, cure)
    cure = _("use lower-case letters and digits, beginning with a letter")
    return ManifestFault(path, what, cure)


_SPECIAL: dict[str, Callable[[str, object, Mapping[str, Any]], ManifestFault]] = {
    "missing": _missing,
    "union_tag_invalid": _unknown_capability,
    "union_tag_not_found": _no_capability,
    "literal_error": _not_allowed,
    "string_pattern_mismatch": _mismatch,
    "value_error": _in_own_words,
}


def _said(value: object) -> Message:
    match value:
        case bool():
            return verbatim(str(value).lower())
        case dict():
            return _("a table")
        case list():
            return _("an array")
        case _:
            return verbatim(f"{value!r:.80}")


def _choose(given: str, known: list[str]) -> Message:
    near = difflib.get_close_matches(given[:60], known, 1, cutoff=0.5)
    listed = listing(sorted(known))
    if near:
        return _("did you mean {near!r}? Known: {listed}", near=near[0], listed=listed)
    return _("known: {listed}", listed=listed)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _walk(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, type[BaseModel] | None]:
    """Return the path as an author writes it, and the model in which its last key was looked up.

    Pydantic's location includes a permission's tag, and `[key]` for a fault in a key; both are dropped.
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
    """The model of an annotation, without `Annotated` and `| None`; None for a table or array of models."""
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
    """The item type of an array or table type: its last parameter that is not `...`."""
    parameters = [a for a in get_args(annotation) if a is not Ellipsis]
    if hasattr(annotation, "__metadata__"):
        return _item(parameters[0])
    return parameters[-1] if parameters else None


def _flat(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield part
        yield from _flat(part)


def _tagged(annotation: Any, tag: str) -> type[BaseModel] | None:
    """The member that `tag` names, if `annotation` is a union of models."""
    models = [m for m in _flat(annotation) if isinstance(m, type) and issubclass(m, BaseModel)]
    if len(models) < 2:
        return None
    for member in models:
        capability = member.model_fields.get("capability")
        if capability is not None and get_args(capability.annotation) == (tag,):
            return member
    return None
