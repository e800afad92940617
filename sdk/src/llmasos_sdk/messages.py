"""Messages for people: written once, in English, with named parameters, and translated when they are shown.

A `Message` is its English text, so that a log or a test reads it as any string; it also keeps the template and the
parameters that the text was made from. The host finds the template's translation in its catalogs and fills it in
with the same parameters, in the language of whoever reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from string import Formatter
from types import MappingProxyType
from typing import Any, Final, TypeAlias, Union, cast

# Nobody reads a longer text. It also bounds what one template can make of long parameters.
MAX_CHARACTERS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Texts:
    """A text that is not ours, in each language that its author wrote; `en` is always there."""

    by_language: Mapping[str, str]

    def text(self, language: str) -> str:
        """The text in a language, or in English."""
        return self.by_language.get(language) or self.by_language["en"]


@dataclass(frozen=True, slots=True)
class Listing:
    """Several parameters in one place, with a separator that is itself translated."""

    items: tuple[Parameter, ...]
    separator: str = ", "


Parameter: TypeAlias = Union[str, int, float, "Message", Texts, Listing]
Translate: TypeAlias = Callable[[str, str, int], str]
"""Returns the template to use, given an id, its plural (empty if it has none) and the count."""


class Message(str):
    """A sentence in English that can be shown in other languages."""

    __slots__ = ("id", "parameters", "plural")

    id: str
    """The English template, which names the message in the catalogs."""
    plural: str
    """The English template for a `count` other than one; empty if no count is named."""
    parameters: Mapping[str, Parameter]

    def __new__(cls, id_: str, parameters: Mapping[str, Parameter] | None = None, plural: str = "") -> Message:
        """Make a message.

        Args:
            id_: The English template, in the notation of `str.format` with named fields alone.
            parameters: What the fields are filled with.
            plural: The template for a `count` other than one.
        """
        values = MappingProxyType(dict(parameters or {}))
        self = super().__new__(cls, _fill(id_, plural, values, _english, "en"))
        self.id, self.plural, self.parameters = id_, plural, values
        return self

    def __reduce__(self) -> tuple[type[Message], tuple[str, dict[str, Parameter], str]]:
        """What `copy` and `pickle` make it from."""
        return Message, (self.id, dict(self.parameters), self.plural)

    def text(self, translate: Translate, language: str) -> str:
        """The sentence in a language, given that language's templates."""
        return _fill(self.id, self.plural, self.parameters, translate, language)

    def document(self) -> dict[str, Any]:
        """The message as a JSON object, for frames and rows; `from_document` reads it."""
        document: dict[str, Any] = {"id": self.id}
        if self.plural:
            document["plural"] = self.plural
        if self.parameters:
            document["parameters"] = {name: _encode(value) for name, value in self.parameters.items()}
        return document

    @classmethod
    def from_document(cls, document: object, depth: int = 32) -> Message:
        """Read what `document` wrote.

        Args:
            document: The JSON object.
            depth: How deep messages may contain messages.

        Raises:
            ValueError: It is not a message.
        """
        if not isinstance(document, dict) or depth <= 0:
            raise ValueError("not a message")
        known = cast("dict[str, Any]", document)
        id_, plural, parameters = known.get("id"), known.get("plural", ""), known.get("parameters", {})
        if not isinstance(id_, str) or not isinstance(plural, str) or not isinstance(parameters, dict):
            raise ValueError("not a message")
        values = {str(name): _decode(value, depth) for name, value in cast("dict[str, Any]", parameters).items()}
        return cls(id_, values, plural)


def message(id_: str, /, **parameters: object) -> Message:
    """Mark a template for translation and fill it in. Imported as `_`.

    A list or tuple becomes a listing; a value that is neither text nor a number is shown as `str` shows it.
    """
    return Message(id_, {name: parameter(value) for name, value in parameters.items()})


def counted(singular: str, plural: str, /, *, count: int, **parameters: object) -> Message:
    """A message whose wording depends on `count`. Imported as `ngettext`."""
    values = {name: parameter(value) for name, value in parameters.items()}
    return Message(singular, {"count": count, **values}, plural)


def verbatim(text: str, **translations: str) -> Message:
    """Words that are not ours, such as an app's or a provider's: shown unchanged.

    Args:
        text: The words.
        translations: The same by language, if their author wrote them so.
    """
    if isinstance(text, Message):
        return text
    return Message("{text}", {"text": Texts({"en": text, **translations}) if translations else str(text)})


def parameter(value: object) -> Parameter:
    """A value as a message holds it."""
    if isinstance(value, (Message, Texts, Listing)):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return listing(value)  # pyright: ignore[reportUnknownArgumentType]
    return str(value)


def listing(items: Iterable[object], separator: str = ", ") -> Listing:
    """Several values with `separator` between them."""
    return Listing(tuple(parameter(item) for item in items), separator)


def _english(id_: str, plural: str, count: int) -> str:
    return plural if plural and count != 1 else id_


def _fill(id_: str, plural: str, parameters: Mapping[str, Parameter], translate: Translate, language: str) -> str:
    count = parameters.get("count", 1)
    template = translate(id_, plural, count if isinstance(count, int) else 1)
    if "{" not in template and "}" not in template:
        return template
    values = {name: _shown(value, translate, language) for name, value in parameters.items()}
    return "".join(_parts(template, values))[:MAX_CHARACTERS]


def _shown(value: Parameter, translate: Translate, language: str) -> str | int | float:
    match value:
        case Message():
            return value.text(translate, language)
        case Texts():
            return value.text(language)
        case Listing():
            separator = translate(value.separator, "", 1)
            return separator.join(str(_shown(item, translate, language)) for item in value.items)
        case _:
            return value


# The formats that a template may ask for: thousands, decimals, significant digits, percent, a cut text. A template
# can come from a runner, so there are no attributes, no items and no padding.
_FORMAT: Final = re.compile(r",|,?\.\d{1,2}[fg%]|\.\d{1,4}|")


def _parts(template: str, values: Mapping[str, str | int | float]) -> Iterable[str]:
    for text, name, form, conversion in Formatter().parse(template):
        yield text
        if name is None:
            continue
        value: str | int | float = values[name]
        if conversion == "r":
            value = repr(value)
        elif conversion:
            raise ValueError(f"{template!r} has the conversion {conversion!r}")
        if not _FORMAT.fullmatch(form or ""):
            raise ValueError(f"{template!r} has the format {form!r}")
        yield format(value, form or "")


def _encode(value: Parameter) -> Any:
    match value:
        case Message():
            return value.document()
        case Texts():
            return {"texts": dict(value.by_language)}
        case Listing():
            return {"list": [_encode(item) for item in value.items], "separator": value.separator}
        case _:
            return value


def _decode(value: Any, depth: int) -> Parameter:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return value
    if not isinstance(value, dict) or depth <= 0:
        raise ValueError("not a message's parameter")
    known = cast("dict[str, Any]", value)
    texts, items, separator = known.get("texts"), known.get("list"), known.get("separator")
    if isinstance(texts, dict):
        said = {str(language): str(text) for language, text in cast("dict[str, Any]", texts).items()}
        if "en" in said:
            return Texts(said)
    if isinstance(items, list) and isinstance(separator, str):
        listed = cast("list[Any]", items)  # type: ignore[redundant-cast]
        return Listing(tuple(_decode(item, depth - 1) for item in listed), separator)
    return Message.from_document(known, depth - 1)


def to_text(text: str) -> str:
    """A message as one text, for what carries texts alone: a component's error, a frame, a row.

    It is the message's document as JSON; words that are no message stay as they are. `from_text` reads it.
    """
    return json.dumps(text.document(), ensure_ascii=False) if isinstance(text, Message) else text


def from_text(text: str, depth: int = 32) -> Message:
    """Read what `to_text` wrote. Any other text is kept verbatim.

    Args:
        text: What was written. It may come from an app.
        depth: How deep messages may contain messages.
    """
    if text.startswith("{"):
        try:
            return Message.from_document(json.loads(text), depth)
        except (ValueError, KeyError, RecursionError):
            pass
    return verbatim(text)


def template(id_: str, /) -> str:
    """Mark a template for translation that is filled in elsewhere."""
    return id_


def well_formed(text: str) -> str:
    """The text with its lone surrogates replaced, for which UTF-8 has no place."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
