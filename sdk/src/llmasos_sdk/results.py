"""The typed results of capabilities."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from llmasos_sdk.host import JsonValue

T = TypeVar("T")
Document = dict[str, Any]  # a JSON object from the host


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a call used, and its price in millionths of a US dollar; None if the price is unknown."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_micro_usd: int | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of the model. `arguments` is empty if the model's JSON was broken; `raw` has it."""

    id: str
    name: str
    arguments: Mapping[str, JsonValue]
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Completion(Generic[T]):
    """A model's answer.

    `parsed` is the typed answer if `output=` was given. `notices` are lines for the user, such as that the model
    is not fit for the task. `finish_reason` is `stop`, `length` (cut at `max_tokens`) or `tool_calls`.
    """

    text: str
    model: str
    parsed: T
    usage: Usage = field(default_factory=Usage)
    tool_calls: tuple[ToolCall, ...] = ()
    notices: tuple[str, ...] = ()
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector for each text, in order."""

    vectors: tuple[tuple[float, ...], ...]
    model: str
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored value and its version, counted from 1."""

    value: bytes
    version: int

    @property
    def text(self) -> str:
        """The value as UTF-8 text.

        Raises:
            TypeError: It is bytes that are no text.
        """
        try:
            return self.value.decode()
        except UnicodeDecodeError:
            raise TypeError("the value is bytes that are no text: use get_bytes") from None

    def json(self) -> Any:
        """The value as JSON."""
        return json.loads(self.value)


@dataclass(frozen=True, slots=True)
class Response:
    """A server's response. Header names are lower case; `url` is the final one after redirects."""

    status: int
    url: str
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def ok(self) -> bool:
        """Whether the status is from 200 to 299."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as UTF-8 text; bytes that are none are replaced."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.content)


def usage_from(document: Document) -> Usage:
    """The usage of a chat completion, an embedding, or a stream's last chunk."""
    usage = cast("Document", document.get("usage") or {})
    told = cast("Document", document.get("llmasos") or {})
    cost = told.get("cost_micro_usd")
    return Usage(
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
        cost_micro_usd=None if cost is None else int(cost),
    )


def notices_from(document: Document) -> tuple[str, ...]:
    """The lines that the host adds for the user."""
    told = cast("Document", document.get("llmasos") or {})
    return tuple(str(line) for line in cast("list[object]", told.get("notices") or []))


def tool_calls_from(message: Document) -> tuple[ToolCall, ...]:
    """The calls in an assistant's message."""
    calls: list[ToolCall] = []
    for call in cast("list[Document]", message.get("tool_calls") or []):
        function = cast("Document", call.get("function") or {})
        raw = str(function.get("arguments") or "")
        try:
            arguments: JsonValue = json.loads(raw or "{}")
        except ValueError:
            arguments = {}
        arguments = arguments if isinstance(arguments, dict) else {}
        calls.append(ToolCall(str(call.get("id") or ""), str(function.get("name") or ""), arguments, raw))
    return tuple(calls)


def completion_from(document: Document) -> Completion[None]:
    """A chat completion as a `Completion`, its `parsed` left to the caller."""
    choice = cast("Document", (document.get("choices") or [{}])[0])
    message = cast("Document", choice.get("message") or {})
    return Completion(
        text=str(message.get("content") or ""),
        model=str(document.get("model") or ""),
        parsed=None,
        usage=usage_from(document),
        tool_calls=tool_calls_from(message),
        notices=notices_from(document),
        finish_reason=str(choice.get("finish_reason") or "stop"),
    )


def bytes_from(document: Document, key: str) -> bytes:
    """The bytes of `{key: text, "base64": bool}`."""
    text = str(document.get(key) or "")
    return base64.b64decode(text) if document.get("base64") else text.encode()
