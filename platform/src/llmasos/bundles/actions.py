"""`actions.json`: an app's actions, with the JSON Schemas of input and output, and its lifecycle hooks.

An entry whose name begins with @ is not an action: it declares a hook for a lifecycle event.

The host checks inputs against these schemas, so a schema is untrusted code. Only keywords whose cost is bounded
by the size of the input are accepted: no regular expressions, no external references, no recursion.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeGuard

from llmasos.bundles.characters import hidden_characters
from llmasos.errors import BundleRejected
from llmasos.i18n import Message, _
from llmasos_sdk import hooks

MAX_ACTIONS: Final = 64
# A form of a hundred fields with texts in two languages has about 1,500 nodes.
MAX_NODES: Final = 20_000
MAX_DEPTH: Final = 32
# Parts of a default times parts of its schema: the bound of one check's cost, about a tenth of a second.
MAX_DEFAULT_STEPS: Final = 100_000
# A caller can never name one, since no action's name contains @.
LIFECYCLE_EVENTS: Final = frozenset(f"@{event}" for event in hooks.LIFECYCLE_EVENTS)
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
KEYS: Final = frozenset({"name", "title", "description", "input_schema", "output_schema", "streaming"})

# Keywords with one subschema, a list of them, and a table of them.
_ONE: Final = frozenset({"items", "additionalProperties", "not"})
_LIST: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_TABLE: Final = frozenset({"properties", "$defs"})
_PLAIN: Final = frozenset({
    "$schema", "type", "enum", "const", "title", "description", "default", "examples", "required", "format",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems",
    "maxItems", "minProperties", "maxProperties", "deprecated", "readOnly", "writeOnly", "$comment",
})  # fmt: skip
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True)
class Action:
    """One action. `raw` is its entry in `actions.json`, as it is stored."""

    name: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    streaming: bool
    raw: Mapping[str, Any]

    def title(self, locale: str) -> str:
        """Its title in a locale, or else in English."""
        return _in_locale(self.raw.get("title"), locale) or self.name

    def description(self, locale: str) -> str:
        """Its description."""
        return _in_locale(self.raw.get("description"), locale)


def _in_locale(text: object, locale: str) -> str:
    if _is_table(text):
        texts: dict[str, str] = text
        return texts.get("zh" if locale.startswith("zh") else "en") or texts.get("en", "")
    return text if isinstance(text, str) else ""


class ListedActions(NamedTuple):
    """The content of `actions.json`."""

    actions: tuple[Action, ...]
    lifecycle_events: tuple[str, ...]
    """Those that the app has a hook for, such as `@install`."""

    @property
    def entries(self) -> list[dict[str, Any]]:
        """All entries, the actions first."""
        return [*(dict(action.raw) for action in self.actions), *({"name": event} for event in self.lifecycle_events)]


def parse_actions(text: str) -> ListedActions:
    """Read `actions.json`, or what a component's `describe` returns.

    Raises:
        BundleRejected: It is not a list of actions, or the host does not accept a schema.
    """
    try:
        listed: object = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        hidden = next(hidden_characters(listed), None)
    except (ValueError, RecursionError) as error:
        raise BundleRejected(
            _("actions.json is not valid JSON: {error}", error=_first_line(error)),
        ) from None
    if hidden:
        path, code = hidden
        raise BundleRejected(
            _(
                "actions.json: {path:.200} contains {code}, which readers cannot see or which covers other text: "
                "remove it from the app's texts",
                path=path,
                code=code,
            ),
        )
    entries: list[object] = listed if _is_list(listed) else []
    events = tuple(_lifecycle_event(item) for item in entries if _is_lifecycle_event(item))
    asked = [item for item in entries if not _is_lifecycle_event(item)]
    if not asked:
        raise BundleRejected(
            _("actions.json is not a list of actions: an app has at least one"),
        )
    if len(asked) > MAX_ACTIONS:
        raise BundleRejected(
            _(
                "actions.json lists {count} actions; the limit is {max_actions}",
                count=len(asked),
                max_actions=MAX_ACTIONS,
            ),
        )
    actions = tuple(_action(item) for item in asked)
    names = [*(action.name for action in actions), *events]
    for name in names:
        if names.count(name) > 1:
            raise BundleRejected(
                _("actions.json names {name!r} twice: rename one", name=name),
            )
    return ListedActions(actions, events)


def lifecycle_events_of(entries: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The lifecycle events among stored entries, which were checked before they were stored."""
    return frozenset(entry["name"] for entry in entries if _is_lifecycle_event(entry))


def checked_actions(entries: Iterable[Mapping[str, Any]]) -> tuple[Action, ...]:
    """The actions among stored entries, which were checked before they were stored."""
    return tuple(
        Action(
            entry["name"],
            entry["input_schema"],
            entry["output_schema"],
            bool(entry.get("streaming")),
            MappingProxyType(dict(entry)),
        )
        for entry in entries
        if not _is_lifecycle_event(entry)
    )


def _is_lifecycle_event(entry: object) -> bool:
    return _is_table(entry) and str(entry.get("name")).startswith("@")


def _lifecycle_event(entry: object) -> str:
    name = str(entry["name"]) if _is_table(entry) else ""
    if name not in LIFECYCLE_EVENTS or entry != {"name": name}:
        raise BundleRejected(
            _(
                'actions.json: {name} is not a lifecycle event: write {{"name": "@install"}}; there are '
                "{lifecycle_events}",
                name=f"{name!r:.80}",
                lifecycle_events=sorted(LIFECYCLE_EVENTS),
            ),
        )
    return name


def _first_line(error: Exception) -> str:
    return "it nests too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0][:200]


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has the same key twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _is_table(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _action(item: object) -> Action:
    if not _is_table(item):
        raise BundleRejected(_("actions.json holds something that is not an action"))
    raw = item
    name = raw.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BundleRejected(
            _("actions.json: {name} is not a name of an action: use a-z, 0-9 and _", name=f"{name!r:.80}"),
        )
    for key in raw:
        if key not in KEYS and not key.startswith("x-"):
            raise BundleRejected(
                _(
                    "actions.json: {name} has the unknown key {key!r}; known: {keys}",
                    name=name,
                    key=key[:60],
                    keys=sorted(KEYS),
                ),
            )
    for key in ("title", "description"):
        _check_text(name, key, raw.get(key, ""))
    streaming = raw.get("streaming", False)
    if not isinstance(streaming, bool):
        raise BundleRejected(
            _("actions.json: {name}.streaming is not true or false", name=name),
        )
    for key in ("input_schema", "output_schema"):
        check_schema(f"{name}.{key}", raw.get(key))
    if raw["input_schema"].get("type") != "object":
        raise BundleRejected(
            _('actions.json: {name}.input_schema is not of type "object": inputs are named', name=name),
        )
    return Action(name, raw["input_schema"], raw["output_schema"], streaming, MappingProxyType(raw))


def _check_text(name: str, key: str, text: object) -> None:
    texts: dict[str, object] = text if _is_table(text) else {"en": text}
    if not all(isinstance(each, str) and len(each) <= 4000 for each in texts.values()) or not set(texts) <= {
        "en",
        "zh",
    }:
        raise BundleRejected(
            _(
                'actions.json: {name}.{key} is not a text, nor {{"en", "zh"}} of texts up to 4000 letters',
                name=name,
                key=key,
            ),
        )


def check_schema(place: str, schema: object) -> None:
    """Check that the host accepts a JSON Schema.

    Args:
        place: Its position, for the message.
        schema: The schema, decoded.

    Raises:
        BundleRejected: It is not valid, has an external reference or recursion, or is too large.
    """
    if not _is_table(schema):
        raise BundleRejected(
            _("actions.json: {place} is not a JSON Schema: write an object", place=place),
        )
    root = schema
    walk = _Walk(place, root)
    walk.cost(root, MAX_DEPTH, ())
    # Imported here: it takes a fifth of the time budget of a command, and most commands read no bundle.
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415

    from llmasos.bundles.formats import FORMATS  # noqa: PLC0415

    try:
        Draft202012Validator.check_schema(root)
    except SchemaError as error:
        where = "/".join(str(step) for step in error.absolute_path)
        raise BundleRejected(
            _(
                "actions.json: {place} is not valid JSON Schema at {where}: {error:.200}",
                place=place,
                where=where or "/",
                error=error.message,
            ),
        ) from None
    for default, own in walk.defaults(root):
        validator: Any = Draft202012Validator(own, format_checker=FORMATS)
        for misfit in islice(validator.iter_errors(default), 1):
            raise BundleRejected(
                _(
                    "actions.json: {place} has a default that its own schema refuses: {error:.200}. "
                    "Give it a default of its type, or null and a type that allows null",
                    place=place,
                    error=misfit.message,
                ),
            )


class _Walk:
    """Measures a schema with every reference expanded. A definition is counted once per depth."""

    def __init__(self, place: str, root: dict[str, Any]) -> None:
        self.place = place
        definitions: object = root.get("$defs")
        self.definitions: dict[str, Any] = definitions if _is_table(definitions) else {}
        self.known: dict[str, tuple[int, int]] = {}

    def _reject(self, what: Message) -> BundleRejected:
        return BundleRejected(_("actions.json: {place} {what}", place=self.place, what=what))

    def cost(self, schema: object, depth: int, inside: tuple[str, ...]) -> int:
        if isinstance(schema, bool):
            return 1
        if not _is_table(schema) or depth == 0:
            raise self._reject(_("is not a JSON Schema, or nests over {max_depth} deep", max_depth=MAX_DEPTH))
        total = 1
        for key, value in schema.items():
            total += self._keyword(key, value, depth - 1, inside)
            if total > MAX_NODES:
                raise self._reject(
                    _(
                        "comes to over {max_nodes} parts when its references are followed: simplify it",
                        max_nodes=MAX_NODES,
                    ),
                )
        return total

    def defaults(self, schema: object) -> Iterator[tuple[object, dict[str, Any]]]:
        """Each default with its schema, which it must match, since calls without that input receive it."""
        if not _is_table(schema):
            return
        if "default" in schema:
            own = {key: value for key, value in schema.items() if key != "$schema"}
            if self.cost(own, MAX_DEPTH, ()) * self._plain(schema["default"], MAX_DEPTH) > MAX_DEFAULT_STEPS:
                raise self._reject(_("has a default that takes too long to check: make it smaller"))
            yield schema["default"], own | {"$defs": self.definitions}
        for key, value in schema.items():
            if key in _ONE:
                yield from self.defaults(value)
            elif key in _LIST and _is_list(value):
                for each in value:
                    yield from self.defaults(each)
            elif key in _TABLE and _is_table(value):
                for each in value.values():
                    yield from self.defaults(each)

    def _keyword(self, key: str, value: object, depth: int, inside: tuple[str, ...]) -> int:
        if key == "$ref":
            return self._reference(value, depth, inside)
        if key == "$schema" and value != DIALECT:
            raise self._reject(_("is written in another dialect than {dialect}", dialect=DIALECT))
        if key in _PLAIN or key.startswith("x-"):
            return self._plain(value, depth)
        if key in _ONE:
            return self.cost(value, depth, inside)
        if key in _LIST and _is_list(value):
            return sum(self.cost(each, depth, inside) for each in value)
        if key in _TABLE and _is_table(value):
            return sum(self.cost(each, depth, inside) for each in value.values())
        raise self._reject(
            _("uses the keyword {key!r} in a way that the host does not run: leave it out", key=key[:60]),
        )

    def _plain(self, value: object, depth: int) -> int:
        if depth <= 0:
            raise self._reject(_("nests over {max_depth} deep", max_depth=MAX_DEPTH))
        if isinstance(value, float) and not math.isfinite(value):
            raise self._reject(_("holds a number that JSON has not"))
        items = value if _is_list(value) else list(value.values()) if _is_table(value) else []
        return 1 + sum(self._plain(each, depth - 1) for each in items)

    def _reference(self, target: object, depth: int, inside: tuple[str, ...]) -> int:
        prefix = "#/$defs/"
        if not isinstance(target, str) or not target.startswith(prefix):
            raise self._reject(
                _("refers to {target}: only {prefix}… is followed", target=f"{target!r:.80}", prefix=prefix)
            )
        name = target.removeprefix(prefix)
        if name not in self.definitions:
            raise self._reject(_("refers to {target!r}, which is not there", target=target[:80]))
        if name in inside:
            raise self._reject(
                _("refers to itself through {target!r}: write out as many levels as are needed", target=target[:80]),
            )
        counted, at_depth = self.known.get(name, (0, MAX_DEPTH + 1))
        if depth < at_depth:  # deeper than before, so it may exceed the limit now
            counted = self.cost(self.definitions[name], depth, (*inside, name))
            self.known[name] = counted, depth
        return counted
