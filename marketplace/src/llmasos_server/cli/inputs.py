"""The inputs of an action on the command line: described, read as the types of their fields, and asked for."""

from __future__ import annotations

import base64
import json
import mimetypes
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

from llmasos.errors import Invalid
from llmasos.i18n import _
from llmasos.printable import one_line
from llmasos_runner.protocol import MAX_PAYLOAD_BYTES
from llmasos_sdk.dates import NotADate, read_date, read_time, write_time
from llmasos_sdk.files import BYTES, MAX_FILE_BYTES, File
from llmasos_sdk.kinds import kind_of
from llmasos_sdk.messages import Parameter
from llmasos_server.cli.output import locale, message_of, note, prompt, say, tr, width_of

MAX_EXAMPLE_DEPTH: Final = 8
_EXAMPLE_TEXTS: Final[Mapping[str, str]] = {"date": "2026-11-28", "date-time": "2026-11-28T09:30:00Z"}
_READERS: Final[Mapping[str, Callable[[str], object]]] = {"date": read_date, "date-time": read_time}
# As people write a time: without a zone, and perhaps without seconds.
_LOCAL_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2})?")


@dataclass(frozen=True, slots=True)
class Input:
    """One input of an action, in words."""

    name: str
    kind: str
    required: bool
    default: str | None
    help: str

    @property
    def summary(self) -> str:
        """Its type, and whether it must be given."""
        if self.required:
            return tr("{kind}, required", kind=self.kind)
        if self.default is None:
            return tr("{kind}, optional", kind=self.kind)
        return tr("{kind}, default {default}", kind=self.kind, default=self.default)


def inputs_of(schema: Mapping[str, Any]) -> list[Input]:
    """The inputs that an action's input schema names, in its order."""
    required = set(schema.get("required", ()))
    found: list[Input] = []
    for name, unresolved in schema.get("properties", {}).items():
        field = _resolved(schema, unresolved)
        default = field.get("default")
        shown = None if default is None else _shown(default)
        title, described = _text(field.get("title")), _text(field.get("description"))
        told = ". ".join(text for text in (title, described) if text)
        found.append(Input(name, _kind_in_words(schema, field), name in required, shown, told))
    return found


def say_inputs(schema: Mapping[str, Any], indent: str = "  ") -> None:
    """Print the inputs of an action, a line each."""
    described = inputs_of(schema)
    if not described:
        say(indent + tr("It takes no input."))
        return
    width = max(width_of(each.name) for each in described)
    for each in described:
        padding = " " * (width - width_of(each.name))
        say(f"{indent}{each.name}{padding}  {each.summary}{f'. {each.help}' if each.help else ''}")


def example_of(app: str, action: str, schema: Mapping[str, Any]) -> str:
    """A command line to copy: with every input that must be given, or with the first if none must be."""
    described = inputs_of(schema)
    chosen = [each for each in described if each.required] or described[:1]
    words = ["llmasos", "run", app, action]
    for each in chosen:
        field = _resolved(schema, schema["properties"][each.name])
        words += ["-p", f"{each.name}={_example_value(schema, field)}"]
    return shlex.join(words)


def ask_for_missing(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Ask on the terminal for each input that must be given and was not."""
    asked: dict[str, Any] = {}
    for each in inputs_of(schema):
        while each.required and each.name not in given and each.name not in asked:
            text = prompt(f"{each.name} ({each.kind}){f' {each.help}' if each.help else ''}: ")
            if not text:
                continue
            try:
                asked |= parsed_parameters(schema, [f"{each.name}={text}"])
            except Invalid as error:
                note(message_of(error))
    return asked


def _resolved(schema: Mapping[str, Any], field: object) -> Mapping[str, Any]:
    """A field with its reference followed; a definition never refers to itself."""
    found: dict[str, Any] = dict(cast("Mapping[str, Any]", field)) if isinstance(field, Mapping) else {}
    while "$ref" in found:
        name = str(found.pop("$ref")).removeprefix("#/$defs/")
        found = {**schema.get("$defs", {}).get(name, {}), **found}
    return found


def _text(value: object) -> str:
    """A title or description, in the user's language if it has several, on one line."""
    if isinstance(value, Mapping):
        texts = cast("Mapping[str, object]", value)
        value = texts.get(locale()) or texts.get("en")
    return one_line(value).strip().rstrip(".。") if isinstance(value, str) else ""


def _shown(value: object) -> str:
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _kind_in_words(schema: Mapping[str, Any], field: Mapping[str, Any]) -> str:
    if "enum" in field:
        choices = ", ".join(
            one_line(each if isinstance(each, str) else json.dumps(each)) for each in field["enum"][:12]
        )
        return tr("one of {choices}", choices=choices)
    if field.get("x-ui") == "file":
        return tr("a file, as @PATH")
    kinds = list(_distinct_kinds(schema, field))
    return tr(" or ").join(kinds) or tr("any value")


def _distinct_kinds(schema: Mapping[str, Any], field: Mapping[str, Any]) -> Iterator[str]:
    kind = field.get("type", [])
    named = cast("list[str]", kind if isinstance(kind, list) else [kind])
    words = [_word(each, field) for each in named if each != "null"]
    branches = [branch for branch in _branches(schema, field) if branch.get("type") != "null"]
    for branch in branches:
        name = _text(branch.get("title")) if branch.get("type") == "object" and len(branches) > 1 else ""
        words.append(tr("a JSON object ({name})", name=name) if name else _kind_in_words(schema, branch))
    yield from dict.fromkeys(words)


def _word(kind: str, field: Mapping[str, Any]) -> str:
    if kind == "string" and field.get("format") in ("date", "date-time"):
        kind = field["format"]
    words = {
        "string": tr("text"),
        "date": tr("a date such as 2026-11-28"),
        "date-time": tr("a time such as 2026-11-28T09:30:00Z"),
        "integer": tr("a whole number"),
        "number": tr("a number"),
        "boolean": tr("true or false"),
        "array": tr("a JSON list"),
        "object": tr("a JSON object"),
    }
    return _within(words.get(kind, kind), field) if kind in ("integer", "number") else words.get(kind, kind)


def _within(word: str, field: Mapping[str, Any]) -> str:
    least, most = field.get("minimum"), field.get("maximum")
    if least is not None and most is not None:
        return tr("{word} from {least} to {most}", word=word, least=least, most=most)
    if least is not None:
        return tr("{word} of at least {least}", word=word, least=least)
    return tr("{word} of at most {most}", word=word, most=most) if most is not None else word


def _example_value(schema: Mapping[str, Any], field: Mapping[str, Any]) -> str:
    return "@FILE" if _takes_file(schema, field) or field.get("x-ui") == "file" else _shown(_example(schema, field))


def _example(schema: Mapping[str, Any], unresolved: object, depth: int = 0) -> object:
    """A value that a field takes: one that its author wrote, or else the least of its type."""
    field = _resolved(schema, unresolved)
    for candidate in (*field.get("examples", ()), *field.get("enum", ()), field.get("const"), field.get("default")):
        if candidate is not None:
            return candidate
    for branch in _branches(schema, field):
        if branch.get("type") != "null" and depth < MAX_EXAMPLE_DEPTH:
            return _example(schema, branch, depth + 1)
    kind: Any = field.get("type")
    first = str(next(iter(kind), "")) if isinstance(kind, list) else kind  # pyright: ignore[reportUnknownArgumentType]
    if first == "object" and depth < MAX_EXAMPLE_DEPTH:
        fields = field.get("properties", {})
        return {name: _example(schema, fields.get(name), depth + 1) for name in field.get("required", ())}
    if first == "array" and field.get("minItems") and depth < MAX_EXAMPLE_DEPTH:
        return [_example(schema, field.get("items"), depth + 1)]
    plain: dict[str, object] = {
        "integer": field.get("minimum", 1),
        "number": field.get("minimum", 1.5),
        "boolean": True,
        "array": [],
        "object": {},
    }
    return plain.get(first, _EXAMPLE_TEXTS.get(field.get("format", ""), "…"))


def given_inputs(text: str | None) -> dict[str, Any]:
    """The inputs of `--input`: a JSON object, or `-` for one on stdin.

    Raises:
        Invalid: It is not a JSON object.
    """
    if text is None:
        return {}
    try:
        value = json.loads((sys.stdin.read() if text == "-" else text).removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise Invalid(_("--input is not JSON: {error}.", error=error)) from error
    if not isinstance(value, dict):
        raise Invalid(_('--input takes a JSON object, such as \'{{"text": "…"}}\'.'))
    return value  # pyright: ignore[reportUnknownVariableType]


def parsed_parameters(schema: Mapping[str, Any], parameters: list[str]) -> dict[str, Any]:
    """The values of `-p key=value`, read as their fields' types; `@file` is what the file holds, `@@` one `@`.

    Raises:
        Invalid: One has no `=`, is not of its field's type, or names a file that cannot be read.
    """
    fields: Mapping[str, Any] = schema.get("properties", {})
    values: dict[str, Any] = {}
    for parameter in parameters:
        key, equals, text = parameter.partition("=")
        if not equals:
            raise Invalid(_("-p {parameter}: write -p KEY=VALUE.", parameter=parameter))
        field = _resolved(schema, fields.get(key, {}))
        if text.startswith("@@"):
            text = text[1:]
        elif text.startswith("@") and _takes_file(schema, field):
            values[key] = _file(key, text[1:])
            continue
        elif text.startswith("@"):
            text = _from_file(key, text[1:], as_base64=field.get("x-ui") == "file")
        values[key] = _typed(key, schema, field, text)
    return values


def _takes_file(schema: Mapping[str, Any], field: object) -> bool:
    """Whether a field takes a `File` of the SDK, or may be left empty instead."""
    found = _resolved(schema, field)
    is_file = found.get("x-ui") == "file" and found.get("type") == "object"
    return is_file or any(_takes_file(schema, branch) for branch in _branches(schema, found))


def _file(key: str, name: str) -> dict[str, Any]:
    """A file as the SDK's `File` is in JSON."""
    content = _content(key, name, MAX_FILE_BYTES)
    kind, _encoding = mimetypes.guess_type(name)
    return dict(File(Path(name).name, content, kind or BYTES).as_json())


def _content(key: str, name: str, most_bytes: int) -> bytes:
    """The bytes of a file.

    Raises:
        Invalid: It cannot be read, or is too large.
    """
    path = Path(name)
    try:
        # One byte more than fits: a file that never ends is not read for ever.
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise Invalid(
            _(
                "-p {key}: {name} cannot be read: {reason}. Write @@{name} for the text itself.",
                key=key,
                name=name,
                reason=error.strerror,
            ),
        ) from error
    if len(content) > most_bytes:
        raise Invalid(
            _(
                "-p {key}: {name} is larger than the {max_payload_kib} KiB that an action takes.",
                key=key,
                name=name,
                max_payload_kib=most_bytes >> 10,
            ),
        )
    return content


def _from_file(key: str, name: str, *, as_base64: bool) -> str:
    """What a file holds: base64 for an input that takes a file, else its text."""
    content = _content(key, name, MAX_PAYLOAD_BYTES)
    if as_base64:
        return base64.b64encode(content).decode()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(
            _("-p {key}: {name} is not a text in UTF-8, and this input takes a text.", key=key, name=name),
        ) from error


def _typed(key: str, schema: Mapping[str, Any], unresolved: object, text: str) -> Any:
    field = _resolved(schema, unresolved)
    kinds = _kinds(schema, field)
    if not kinds or kinds == {"string"}:
        return _text_of(key, schema, field, text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if "string" in kinds:
            return _text_of(key, schema, field, text)
        wanted = " / ".join(sorted(kinds))
        raise Invalid(
            _("-p {key}: {text!r} is not of type {wanted}; write it as JSON.", key=key, text=text[:60], wanted=wanted),
        ) from error
    # For a text that may be null, `5` is a text; without a text, the host says what the value is to be.
    if "string" in kinds and kind_of(value) not in {"number" if each == "integer" else each for each in kinds}:
        return _text_of(key, schema, field, text)
    return value


def _kinds(schema: Mapping[str, Any], field: Mapping[str, Any]) -> set[str]:
    """The types that a field's schema allows, as far as it names them."""
    if "enum" in field:
        return {kind_of(each) for each in field["enum"]}
    kind = field.get("type")
    kinds = set(kind if isinstance(kind, list) else [kind] if kind else [])  # pyright: ignore[reportUnknownArgumentType]
    for each in _branches(schema, field):
        kinds |= _kinds(schema, each)
    return kinds


def _branches(schema: Mapping[str, Any], field: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of a union, each with its reference followed."""
    return [_resolved(schema, branch) for name in ("anyOf", "oneOf") for branch in field.get(name, ())]


def _texts(schema: Mapping[str, Any], field: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The field's alternatives that take a text, or the field itself."""
    found = [text for branch in _branches(schema, field) for text in _texts(schema, branch)]
    return found + ([field] if "string" in _kinds({}, {**field, "anyOf": (), "oneOf": ()}) else [])


def _text_of(key: str, schema: Mapping[str, Any], field: Mapping[str, Any], text: str) -> str:
    """The text, checked if the field takes only dates or times. A time without a zone is one of this computer's zone.

    Raises:
        Invalid: It is no such date or time.
    """
    formats = [each.get("format") if "enum" not in each else None for each in _texts(schema, field)]
    if "date-time" in formats and _LOCAL_TIME.fullmatch(text):
        with suppress(ValueError, OverflowError):  # there is no such time: it is refused below
            text = write_time(datetime.fromisoformat(text).astimezone())
    readers = [_READERS.get(str(each)) for each in formats]
    expected: Parameter | None = None
    for read in readers:
        if read is None:
            return text
        try:
            read(text)
        except NotADate as error:
            expected = error.expected if len(readers) == 1 else _("a date such as 2026-11-28, or a time")
        else:
            return text
    if expected is not None:
        raise Invalid(_("-p {key}: expected {expected}, got {text!r}.", key=key, expected=expected, text=text[:60]))
    return text
