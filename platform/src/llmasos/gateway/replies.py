"""Bounds what servers send to litellm, and mends the parts of it that litellm cannot read.

litellm takes the body of a whole answer without a limit, and drops an answer that was paid for if its usage is not
made of integers, or if its text comes in parts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from llmasos.gateway.failures import BadAnswer
from llmasos.gateway.models import ModelEntry
from llmasos.i18n import _

if TYPE_CHECKING:
    import httpx

# The longest answers have 128,000 tokens, each of at most 32 characters, and are seldom a tenth of this.
ANSWER_BYTES: Final = 16 << 20
# 8192 numbers of 25 characters.
EMBEDDING_BYTES: Final = 256 << 10
# Formats that carry a stream in frames, which end elsewhere than at a line's end, are only counted.
FRAMES_BYTES: Final = 256 << 20

Send = Callable[["httpx.Request"], Awaitable["httpx.Response"]]


@dataclass(frozen=True, slots=True)
class _Bound:
    entry: ModelEntry
    most_bytes: int

    def too_large(self, most_bytes: int) -> BadAnswer:
        return BadAnswer(
            _(
                "The reply of {entry} is larger than {mebibytes} MiB, so it was not read to its end; run `llmasos "
                "models test {entry}`.",
                entry=self.entry.name,
                mebibytes=most_bytes >> 20,
            )
        )


_bound: ContextVar[_Bound | None] = ContextVar("reply_bound", default=None)


@contextmanager
def replies_within(entry: ModelEntry, most_bytes: int) -> Generator[None]:
    """Bound the replies to the requests that begin in the block."""
    token = _bound.set(_Bound(entry, most_bytes))
    try:
        yield
    finally:
        _bound.reset(token)


def bounded(create_transport: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap litellm's factory of transports, so that each of them bounds and mends its replies."""

    def create(*args: Any, **kwargs: Any) -> Any:
        transport = create_transport(*args, **kwargs)
        # On the instance, since litellm looks at the class of its transports.
        transport.handle_async_request = _mending(transport.handle_async_request)
        return transport

    return create


def _mending(send: Send) -> Send:
    import httpx  # noqa: PLC0415 - comes with litellm, late as it does

    class MendedReply(httpx.AsyncByteStream):
        def __init__(self, response: httpx.Response, bound: _Bound) -> None:
            self._response = response
            self._bound = bound

        async def __aiter__(self) -> AsyncIterator[bytes]:
            kind = self._response.headers.get("content-type", "").partition(";")[0].strip().lower()
            framed = kind.startswith("application/") and not (kind.endswith("json") and "ndjson" not in kind)
            parts = self._response.aiter_bytes()
            async for part in _counted(parts, self._bound) if framed else _mended(parts, self._bound):
                yield part

        async def aclose(self) -> None:
            await self._response.aclose()

    async def handle(request: httpx.Request) -> httpx.Response:
        response = await send(request)
        bound = _bound.get()
        if bound is None:
            return response
        # It is decompressed here, so that what is counted is what is read.
        headers = [each for each in response.headers.raw if each[0].lower() not in _OF_THE_BODY]
        reply = MendedReply(response, bound)
        return httpx.Response(response.status_code, headers=headers, stream=reply, request=request)

    return handle


_OF_THE_BODY: Final = (b"content-encoding", b"content-length", b"transfer-encoding")


async def _counted(parts: AsyncIterator[bytes], bound: _Bound) -> AsyncGenerator[bytes]:
    size = 0
    async for part in parts:
        size += len(part)
        if size > FRAMES_BYTES:
            raise bound.too_large(FRAMES_BYTES)
        yield part


async def _mended(parts: AsyncIterator[bytes], bound: _Bound) -> AsyncGenerator[bytes]:
    """Whole JSON at its end, lines as they come."""
    held = bytearray()
    whole: bool | None = None
    async for part in parts:
        held += part
        if whole is None and (begin := part.lstrip(_BLANKS)[:1]):
            whole = begin in (b"{", b"[")
        if len(held) > bound.most_bytes:
            raise bound.too_large(bound.most_bytes)
        end = max(part.rfind(b"\n"), part.rfind(b"\r")) + 1
        if whole is False and end:
            lines = bytes(held[: len(held) - len(part) + end])
            del held[: len(lines)]
            yield _EVENT.sub(lambda line: line[1] + _mend(line[2]), lines)
    if held:
        yield _mend(bytes(held)) if whole else _EVENT.sub(lambda line: line[1] + _mend(line[2]), bytes(held))


_BLANKS: Final = b"\xef\xbb\xbf \t\r\n"
_EVENT: Final = re.compile(rb"^(data:[ ]?)([^\r\n]+)", re.MULTILINE)
# An object is parsed only if there may be something to mend, since events are many.
_SUSPECT: Final = re.compile(rb'"content"\s*:\s*\[|"usage"\s*:\s*[^n\s]|"usageMetadata"')


def _mend(text: bytes) -> bytes:
    """Return a JSON object that litellm can read, or what came if it is none."""
    if not _SUSPECT.search(text):
        return text
    try:
        value: object = json.loads(text)
        if not isinstance(value, dict):
            return text
        return json.dumps(_mended_answer(cast("dict[str, Any]", value))).encode()
    except (ValueError, RecursionError):
        return text


def _mended_answer(answer: dict[str, Any]) -> dict[str, Any]:
    for field in ("usage", "usageMetadata"):
        if field in answer:
            answer[field] = _counts(answer[field])
    choices: object = answer.get("choices")
    for choice in cast("list[object]", choices) if isinstance(choices, list) else []:
        for field in ("message", "delta"):
            message = cast("dict[str, object]", choice).get(field) if isinstance(choice, dict) else None
            if isinstance(message, dict):
                _join_parts(cast("dict[str, Any]", message))
    return answer


def _counts(usage: object) -> dict[str, Any] | None:
    """A usage without what is no number of tokens, for the host to count."""
    if not isinstance(usage, dict):
        return None
    counts: dict[str, Any] = {}
    for name, value in cast("dict[str, object]", usage).items():
        if name.endswith(("_details", "Details")):
            if isinstance(value, list) and name.endswith("Details"):  # as Gemini's are
                counts[name] = value
            elif isinstance(value, dict):
                counts[name] = _counts(cast("dict[str, object]", value))
        elif not name.endswith(("_tokens", "TokenCount")):
            counts[name] = value
        elif (number := _integer(value)) is not None:
            counts[name] = number
    return counts


def _integer(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return math.ceil(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _join_parts(message: dict[str, Any]) -> None:
    """Join a text that comes in parts, and part what was thought from it."""
    content = message.get("content")
    if not isinstance(content, list):
        return
    said: list[str] = []
    thought: list[str] = []
    for part in cast("list[object]", content):
        fields = cast("dict[str, object]", part) if isinstance(part, dict) else {"text": part}
        text, thinking = fields.get("text"), fields.get("thinking")
        if isinstance(thinking, list):
            inner = cast("list[object]", thinking)
            thinking = "".join(
                str(cast("dict[str, object]", each).get("text", "")) for each in inner if isinstance(each, dict)
            )
        said += [text] if isinstance(text, str) else []
        thought += [thinking] if isinstance(thinking, str) else []
    message["content"] = "".join(said)
    if thought and not message.get("reasoning_content"):
        message["reasoning_content"] = "".join(thought)
