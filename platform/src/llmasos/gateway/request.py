"""Model requests, in the form of chat completions: typed, bounded, and parsed once at the edge.

Everything sent to a provider is a field here, so that all of it is checked and counted. Unknown fields are
refused: ignoring one would mislead the caller, and passing it on unread would cost uncounted tokens.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from llmasos.errors import Invalid
from llmasos.i18n import _, listing
from llmasos.validation import Misfit, misfit
from llmasos_runner.protocol import MAX_PAYLOAD_BYTES

Task: TypeAlias = Literal[
    "chat", "classify", "extract", "summarise", "translate", "write", "code", "reason", "question", "other"
]

# No real conversation has more turns than this, and each turn costs a template and a place in the engine's lists.
MAX_MESSAGES: Final = 2000
MAX_TOOLS: Final = 128
# As base64 it leaves a quarter of a call's payload for the rest; providers scale larger pictures down themselves.
MAX_MEDIA_BYTES: Final = MAX_PAYLOAD_BYTES * 9 // 16
# The largest schema that providers accept is about half of this.
MAX_SCHEMA_CHARACTERS: Final = 128 << 10
MAX_SCHEMA_DEPTH: Final = 32
MAX_ADDRESS_CHARACTERS: Final = 2048

_PICTURE_TYPES: Final = ("image/png", "image/jpeg", "image/webp", "image/gif")
_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)

RequestT = TypeVar("RequestT", bound="Shape")


class Shape(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def as_sent(self) -> dict[str, Any]:
        """The plain value that is sent to providers."""
        return self.model_dump(by_alias=True, exclude_none=True)


def _picture(url: str) -> str:
    if url.startswith(("https://", "http://")) and len(url) <= MAX_ADDRESS_CHARACTERS:
        return url
    kind, separator, data = url.partition(";base64,")
    if not separator or kind.removeprefix("data:") not in _PICTURE_TYPES or not kind.startswith("data:"):
        raise Misfit(
            _(
                "a picture is sent as data:image/png;base64,… (or jpeg, webp, gif), or named by a web address that the "
                "app may fetch"
            )
        )
    seen = picture_type(_decoded(data))
    if seen is None:
        raise Misfit(_("it is no PNG, JPEG, WebP or GIF"))
    return f"data:{seen};base64,{data}"  # some providers refuse a picture of another type than its address says


def picture_type(data: bytes) -> str | None:
    """The media type of a picture by its first bytes, as nothing that is said about it can be trusted."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def _sound(data: str) -> str:
    _decoded(data)
    return data


def _decoded(data: str) -> bytes:
    if len(data) > MAX_MEDIA_BYTES * 4 // 3 + 4:
        kilobytes = MAX_MEDIA_BYTES >> 10
        raise Misfit(_("it is larger than {kilobytes} KiB; make it smaller", kilobytes=kilobytes))
    try:
        decoded = b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Misfit(_("it is not base64")) from None
    if not decoded:
        raise Misfit(_("it is empty"))
    return decoded


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    waiting: list[tuple[object, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_SCHEMA_DEPTH:
            raise Misfit(_("it nests deeper than {max_schema_depth} levels", max_schema_depth=MAX_SCHEMA_DEPTH))
        if isinstance(value, Mapping):
            waiting += [(each, depth + 1) for each in cast(Mapping[str, object], value).values()]
        elif isinstance(value, list):
            waiting += [(each, depth + 1) for each in cast(list[object], value)]
    if (size := len(json.dumps(schema, ensure_ascii=False))) > MAX_SCHEMA_CHARACTERS:
        raise Misfit(
            _(
                "it has {size:,} characters, more than {max_schema_characters:,}",
                size=size,
                max_schema_characters=MAX_SCHEMA_CHARACTERS,
            ),
        )
    return schema


Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
StopText: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]
JsonSchema: TypeAlias = Annotated[dict[str, Any], AfterValidator(_schema)]


class TextPart(Shape):
    """A piece of text."""

    type: Literal["text"]
    text: str


class Picture(Shape):
    """A picture: data, or an address that the host fetches for an app. `detail` selects the resolution."""

    url: Annotated[str, AfterValidator(_picture)]
    detail: Literal["auto", "low", "high"] | None = None


class PicturePart(Shape):
    """A picture part of a chat completion."""

    type: Literal["image_url"]
    image_url: Picture


class Sound(Shape):
    """A recording, in base64."""

    data: Annotated[str, AfterValidator(_sound)]
    format: Literal["wav", "mp3"]


class SoundPart(Shape):
    """A recording part of a chat completion."""

    type: Literal["input_audio"]
    input_audio: Sound


Part: TypeAlias = Annotated[TextPart | PicturePart | SoundPart, Field(discriminator="type")]


class CalledFunction(Shape):
    """The function of a tool call; the arguments are JSON text, as the model wrote it."""

    name: Name
    arguments: str


class ChatToolCall(Shape):
    """A tool call that an assistant's turn made."""

    id: Name
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Annotated[int | None, Field(exclude=True)] = None
    """Its place in a streamed answer; accepted, since streamed calls carry it, and never sent."""


class ChatMessage(Shape):
    """One turn. `content` is text or parts; tool turns carry `tool_call_id`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ChatToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Name | None = None

    @property
    def text(self) -> str:
        """The turn's text, without pictures and sounds."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))


class ToolFunction(Shape):
    """A function that the model may call; `parameters` is the JSON Schema of its arguments."""

    name: Name
    description: str | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class Tool(Shape):
    """A tool that the model may use."""

    type: Literal["function"]
    function: ToolFunction


class NamedFunction(Shape):
    """A function by name."""

    name: Name


class NamedTool(Shape):
    """The tool that the model must use."""

    type: Literal["function"] = "function"
    function: NamedFunction


class NamedSchema(Shape):
    """A JSON Schema for the answer, with a name."""

    name: Name = "answer"
    description: str | None = None
    schema_: Annotated[JsonSchema, Field(alias="schema")]
    strict: bool | None = None


class PlainFormat(Shape):
    """Text, or JSON of any form."""

    type: Literal["text", "json_object"]


class SchemaFormat(Shape):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class GenerateRequest(Shape):
    """The request that a capability call, `/v1` and `import llmasos` are all parsed into."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: Annotated[str, StringConstraints(max_length=128)] | None = None
    """A model by name; empty: the first of the tier."""
    tier: Literal["fast", "balanced", "best"] | None = None
    task: Task | None = None
    language: Annotated[str, StringConstraints(max_length=35)] | None = None
    """BCP 47, of the answer, if the caller knows it."""
    require_fit: bool = False
    """Whether to fail with `model-not-fit` rather than let a model answer that is not fit for the task and language."""
    max_tokens: Annotated[int, Field(ge=1, le=1 << 30)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: Annotated[list[StopText], Field(max_length=16)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    response_format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None


class EmbedRequest(Shape):
    """Texts to embed."""

    input: Annotated[list[str], Field(min_length=1, max_length=2048)]
    model: Annotated[str, StringConstraints(max_length=128)] | None = None


def parse_request(shape: type[RequestT], text: str) -> RequestT:
    """Parse a request from a guest's JSON text.

    Raises:
        Invalid: It violates the contract; each fault names its field.
    """
    try:
        return shape.model_validate_json(text)
    except ValidationError as error:
        raise invalid_request(error) from error


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc if "[" not in str(part))


def invalid_request(error: ValidationError) -> Invalid:
    """Make the error of an invalid request."""
    faults = error.errors()
    if any("list[" in str(part) for fault in faults for part in fault["loc"]):
        # For a list of parts, pydantic also reports that it is no string.
        faults = [fault for fault in faults if fault["loc"][-1] != "str"]
    told = [_("{field}: {what}", field=_place(fault["loc"]), what=misfit(fault)) for fault in faults[:5]]
    return Invalid(_("The request is not valid: {faults}", faults=listing(told, "; ")))
