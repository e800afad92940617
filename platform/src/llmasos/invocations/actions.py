"""Checks the inputs and outputs of actions against their schemas.

The schemas come from a bundle, so they are not trusted; `bundles.actions` refuses the worst of them. The validator
knows only keywords whose work grows with the value alone, counts its steps, and follows no reference out of the schema:
no schema can hold up the host or reach a network.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import UnknownType, ValidationError  # pyright: ignore[reportUnknownVariableType]
from jsonschema.validators import create  # pyright: ignore[reportUnknownVariableType]
from referencing import Registry
from referencing.exceptions import Unresolvable

from llmasos.bundles.actions import Action
from llmasos.bundles.formats import FORMATS
from llmasos.errors import AppFailed, Invalid, NotFound, ResourceLimit
from llmasos.i18n import Message, _, listing, template, verbatim
from llmasos_runner.protocol import MAX_PAYLOAD_BYTES
from llmasos_sdk.dates import NotADate

Json: TypeAlias = Any
Schema: TypeAlias = Mapping[str, Any]
Checked = TypeVar("Checked")

# A step takes about 10 µs. A form takes dozens of steps, a list of 50,000 numbers takes 50,000.
INLINE_STEPS: Final = 300
MAX_STEPS: Final = 60_000


@dataclass(frozen=True, slots=True)
class InputFault:
    """One fault of a value: its place, as a JSON pointer, and its description."""

    pointer: str
    message: Message

    @property
    def field(self) -> str:
        """The place as a person writes it: `person.name`."""
        return " ".join(self.pointer.lstrip("/").replace("/", ".").split())


class InputRejected(Invalid):
    """The input does not fit what the action takes."""

    code = "input-rejected"

    def __init__(self, message: str | None = None, *, faults: tuple[InputFault, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class TooManySteps(Exception):
    """A check exceeded a step limit that is below `MAX_STEPS`; repeat it off the event loop."""


async def checked(check: Callable[[int], Checked]) -> Checked:
    """Run a check inline if it is short, else in a thread, and return its result.

    Args:
        check: Receives the number of steps that it may take; raises `TooManySteps` beyond it.
    """
    try:
        return check(INLINE_STEPS)
    except TooManySteps:
        return await asyncio.to_thread(check, MAX_STEPS)


def action_named(actions: Mapping[str, Action], name: str) -> Action:
    """Find one of an app's actions.

    Raises:
        NotFound: It has no such action.
    """
    action = actions.get(name)
    if action is None:
        name = name[:128]
        raise NotFound(
            _("The app has no action {name!r}; it has {actions}.", name=name, actions=sorted(actions) or _("none"))
        )
    return action


def check_input(action: Action, value: Json, steps: int = MAX_STEPS) -> dict[str, Json]:
    """Check the input of an action, and fill in defaults.

    Args:
        action: Whose input it is.
        value: A decoded JSON value.
        steps: How long the check may take; see `checked`.

    Raises:
        InputRejected: It does not match; the message names the field.
    """
    if not isinstance(value, dict):
        raise InputRejected(_("The input must be a JSON object."))
    filled = cast("dict[str, Json]", _with_defaults(action.input_schema, value))
    fields = list(action.input_schema.get("properties", ()))
    faults = sorted(_faults(action.input_schema, filled, steps), key=lambda fault: _place(fault, fields))
    if faults:
        told = [_("{field}: {what}", field=each.field or _("input"), what=each.message) for each in faults[:5]]
        raise InputRejected(_("{faults}", faults=listing(told, "; ")), faults=tuple(faults))
    return filled


def check_output(action: Action, text: str, limit_bytes: int, steps: int = MAX_STEPS) -> Json:
    """Check and decode the output of an action.

    Args:
        action: Whose output it is.
        text: JSON text from the app.
        limit_bytes: The largest output that the invocation may return.
        steps: How long the check may take; see `checked`.

    Raises:
        ResourceLimit: It is too large.
        AppFailed: It is not JSON, or does not match the action's schema.
    """
    size = len(text.encode())
    if size > limit_bytes:
        raise ResourceLimit(
            _("The action returned {size} bytes, over its limit of {limit_bytes}.", size=size, limit_bytes=limit_bytes),
        )
    try:
        value: Json = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise AppFailed(_("The action's result is not JSON; its author must fix it.")) from error
    faults = _faults(action.output_schema, value, steps)
    if faults:
        raise AppFailed(
            _(
                "The action's result does not fit its schema at {pointer}: {what}; its author must fix it.",
                pointer=faults[0].pointer or "/",
                what=faults[0].message,
            )
        )
    return value


def encode_input(value: Mapping[str, Json]) -> str:
    """Encode the input as JSON text.

    Raises:
        InputRejected: It is larger than any action accepts.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_PAYLOAD_BYTES:
        raise InputRejected(
            _(
                "The input has {size:,} bytes; an action accepts at most {max_payload_bytes:,}.",
                size=size,
                max_payload_bytes=MAX_PAYLOAD_BYTES,
            ),
        )
    return text


def _place(fault: InputFault, fields: list[str]) -> int:
    """The position of the faulty field in a form; anything that is not a field comes last."""
    name = fault.field.partition(".")[0]
    return fields.index(name) if name in fields else len(fields)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _with_defaults(schema: Schema, value: Json, depth: int = 0) -> Json:
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, Mapping) or depth > 16:
        return cast("Json", value)
    filled = dict(cast("Mapping[str, Json]", value))
    for name, below in cast("Mapping[str, Json]", properties).items():
        if not isinstance(below, Mapping):
            continue
        if name not in filled and "default" in below:
            filled[name] = below["default"]
        elif name in filled:
            filled[name] = _with_defaults(cast("Schema", below), filled[name], depth + 1)
    return filled


_steps: ContextVar[list[int]] = ContextVar("steps")
Keyword: TypeAlias = Callable[[Any, Any, Any, Any], Iterator[ValidationError]]


def _counted(keyword: Keyword) -> Keyword:
    def checked(validator: Any, expected: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        left = _steps.get()
        left[0] -= 1
        if left[0] < 0:
            raise TooManySteps
        yield from keyword(validator, expected, instance, schema) or ()

    return checked


_KNOWN: Final = (
    *("$ref", "type", "enum", "const", "anyOf", "oneOf", "allOf", "not"),
    *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    *("items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"),
)
# Without a version: a named one would replace the dialect's own validator globally.
_Validator: Final[Any] = create(
    meta_schema=Draft202012Validator.META_SCHEMA,
    validators={name: _counted(cast("Keyword", Draft202012Validator.VALIDATORS[name])) for name in _KNOWN},
    type_checker=Draft202012Validator.TYPE_CHECKER,
)


# A reference out of the schema resolves to nothing.
_NOTHING: Final[Any] = cast("Any", Registry)()


_TOO_LARGE: Final = InputFault("", _("it is too deep or too large to check"))
_BROKEN: Final = InputFault("", _("the action's schema is broken; its author must fix it"))


def _faults(schema: Schema, value: Json, steps: int) -> list[InputFault]:
    """The faults of a value, in the value's order."""
    token = _steps.set([steps])
    try:
        validator = _Validator(schema, registry=_NOTHING, format_checker=FORMATS)
        errors: list[ValidationError] = list(validator.iter_errors(value))
    except (TooManySteps, RecursionError) as error:
        if isinstance(error, TooManySteps) and steps < MAX_STEPS:
            raise
        return [_TOO_LARGE]
    except (Unresolvable, UnknownType, ValueError, TypeError, AttributeError, KeyError):
        return [_BROKEN]
    finally:
        _steps.reset(token)
    return [fault for error in errors for fault in _described(error)]


def _described(error: ValidationError) -> Iterator[InputFault]:
    """Describe one error of the validator; a missing or unknown field is named by its own pointer."""
    if error.validator in ("anyOf", "oneOf") and error.context:
        meant = _meant(error)
        if meant:
            yield from meant
            return
    pointer = _pointer(error)
    instance, expected = cast("Json", error.instance), cast("Json", error.validator_value)
    match error.validator:
        case "required":
            missing = [name for name in expected if name not in instance]
            # The validator reports each missing name separately; the first report covers all of them.
            if error.message.startswith(repr(missing[0])):
                for name in missing:
                    yield InputFault(f"{pointer}/{_escaped(name)}", _("is missing"))
        case "additionalProperties":
            known = list(cast("Schema", error.schema).get("properties", {}))
            unknown = _("there is no such field; there are: {known}", known=known or _("none"))
            for name in instance:
                if name not in known:
                    yield InputFault(f"{pointer}/{_escaped(name)}", unknown)
        case "anyOf" | "oneOf":
            yield InputFault(pointer, _("fits none of the forms that this field allows"))
        case "format" if isinstance(error.cause, NotADate):
            yield InputFault(pointer, _("must be {expected}", expected=error.cause.expected))
        case keyword:
            yield InputFault(pointer, _words(str(keyword), expected, error.message))


def _meant(union: ValidationError) -> list[InputFault]:
    """The faults of the branch of a union that the value can have meant; none if that is not clear.

    A branch of another type is not meant, nor one whose tag, a property of fixed values, has another value.
    """
    own = len(union.absolute_path)
    branches: dict[object, list[ValidationError]] = {}
    tags: dict[str, list[Json]] = {}
    for error in union.context or ():
        errors = branches.setdefault(error.schema_path[0], [])
        depth = len(error.absolute_path) - own
        if depth == 1 and error.validator in ("enum", "const"):
            expected = cast("Json", error.validator_value)
            tags.setdefault(_pointer(error), []).extend(expected if error.validator == "enum" else [expected])
        errors.append(error)
    near = [
        [fault for each in errors for fault in _described(each)]
        for errors in branches.values()
        if _is_near(errors, own)
    ]
    if not near and len(tags) == 1:
        (pointer, values) = tags.popitem()
        return [InputFault(pointer, _words("enum", values, ""))]
    common = [fault for fault in near[0] if all(fault in faults for faults in near)] if near else []
    if common:
        return common
    near.sort(key=len)
    return near[0] if len(near) == 1 or (near and len(near[0]) < len(near[1])) else []


def _is_near(errors: list[ValidationError], own: int) -> bool:
    """Whether a branch is of the value's type, and of its tag."""
    depths = {"type": (0,), "enum": (0, 1), "const": (0, 1)}
    return not any(len(each.absolute_path) - own in depths.get(str(each.validator), ()) for each in errors)


def _pointer(error: ValidationError) -> str:
    return "".join(f"/{_escaped(part)}" for part in error.absolute_path)


_WORDS: Final[Mapping[str, str]] = {
    "type": template("must be of type {expected}"),
    "enum": template("must be one of {expected}"),
    "minimum": template("must be at least {expected}"),
    "maximum": template("must be at most {expected}"),
    "minLength": template("must have a length of at least {expected}"),
    "minItems": template("must have a length of at least {expected}"),
    "maxLength": template("must have a length of at most {expected}"),
    "maxItems": template("must have a length of at most {expected}"),
}


def _words(keyword: str, expected: Json, message: str) -> Message:
    words = _WORDS.get(keyword)
    if words is None:
        return verbatim(message if len(message) <= 200 else f"{message[:200]}…")
    parts = cast("Sequence[Json]", expected if isinstance(expected, list) else (expected,))
    listed = listing(json.dumps(part, ensure_ascii=False) if keyword == "enum" else str(part) for part in parts)
    return Message(words, {"expected": listed})


def _escaped(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")
