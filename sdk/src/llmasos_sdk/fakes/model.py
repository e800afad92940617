"""A model with scripted answers that otherwise behaves as a real one: usage, limits, streams, tool calls."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast

from llmasos_sdk.encoding import encode
from llmasos_sdk.errors import AppError, NotFound, Unavailable
from llmasos_sdk.fakes.requests import check_embedding, check_generation
from llmasos_sdk.host import JsonValue
from llmasos_sdk.results import Document, ToolCall

# A text; JSON by an object, list or dataclass; tool calls; or an error that the host returns.
Answer: TypeAlias = object
Script: TypeAlias = object  # an Answer, or a function from the request to one

NAME = "scripted"
TOKEN = re.compile(r"\w+|[^\w\s]")
PIECE = re.compile(r"\S+\s*|\s+")
DIMENSIONS = 64


class ScriptedModel:
    """Returns the answers of its script in order, and records the requests.

    Args:
        *script: The answers. A function receives the request and returns one; a last function serves every further
            call.
        max_output_tokens: As in the permission: longer answers are cut, with `finish_reason` "length".
        notices: Lines for the user that each answer carries.
        is_fit: Whether it is fit for its tasks; if not, calls with `require_fit` fail, as on a host.
    """

    def __init__(
        self, *script: Script, max_output_tokens: int = 1024, notices: Iterable[str] = (), is_fit: bool = True
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self.max_output_tokens = max_output_tokens
        self.notices = list(notices)
        self.is_fit = is_fit
        self._script: list[Script] = list(script)
        self._streams: dict[int, list[Document]] = {}
        self._opened = 0

    @property
    def open_streams(self) -> int:
        """Streams that were neither read to their end nor closed."""
        return len(self._streams)

    def answers(self, *script: Script) -> None:
        """Add to the script."""
        self._script.extend(script)

    def call(self, function: str, *arguments: JsonValue) -> JsonValue:
        """Call a function of the contract's interface `model`."""
        match function, arguments:
            case "generate", (str(text),):
                return json.dumps(self._complete(check_generation(text)), ensure_ascii=False)
            case "open", (str(text),):
                self._opened += 1
                self._streams[self._opened] = _chunks(self._complete(check_generation(text)))
                return self._opened
            case "read", (int(number),):
                return self._read(number)
            case "close", (int(number),):
                self._streams.pop(number, None)
                return None
            case "embed", (str(text),):
                return json.dumps(_embed(check_embedding(text)))
            case "count-tokens", (str(text),):
                return count_tokens(text)
            case _:
                raise NotFound(f"model has no function {function} with these arguments")

    def _read(self, number: int) -> str | None:
        parts = self._streams.get(number)
        if not parts:
            self._streams.pop(number, None)
            return None
        return json.dumps(parts.pop(0), ensure_ascii=False)

    def _complete(self, request: dict[str, Any]) -> Document:
        self.requests.append(request)
        if request.get("require_fit") and not self.is_fit:
            raise Unavailable("No model here is fit for this: connect one with `llmasos models add`.")
        answer = self._next(request)
        if isinstance(answer, AppError):
            raise answer
        limit = min(int(request.get("max_tokens") or self.max_output_tokens), self.max_output_tokens)
        text, calls = _spoken(answer)
        text, cut = _cut(text, limit)
        message: Document = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = calls
        reason = "length" if cut else "tool_calls" if calls else "stop"
        prompt = sum(count_tokens(str(turn.get("content") or "")) for turn in request["messages"])
        used = count_tokens(text) + count_tokens(json.dumps(calls) if calls else "")
        return {
            "object": "chat.completion",
            "model": request.get("model") or NAME,
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": used, "total_tokens": prompt + used},
            "llmasos": {"notices": self.notices, "cost_micro_usd": 0},
        }

    def _next(self, request: dict[str, Any]) -> Answer:
        if not self._script:
            last = str(request["messages"][-1].get("content"))
            raise AssertionError(f"ScriptedModel has no answer left, and was asked: {last!r}; add one with answers()")
        step = self._script[0]
        is_function = callable(step) and not isinstance(step, type)
        if not (is_function and len(self._script) == 1):
            self._script.pop(0)
        return cast("Callable[[dict[str, Any]], Answer]", step)(request) if is_function else step


def count_tokens(text: str) -> int:
    """Count words and signs: close to a real tokenizer, and deterministic."""
    return len(TOKEN.findall(text))


def _spoken(answer: Answer) -> tuple[str, list[Document]]:
    """The text and the tool calls of a scripted answer."""
    if isinstance(answer, str):
        return answer, []
    items: list[object] = [*answer] if isinstance(answer, list) else [answer]
    calls = [item for item in items if isinstance(item, ToolCall)]
    if calls:
        return "", [_called(call) for call in calls]
    return json.dumps(encode(cast("Any", answer)), ensure_ascii=False), []


def _called(call: ToolCall) -> Document:
    arguments = call.raw or json.dumps(dict(call.arguments), ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _cut(text: str, limit: int) -> tuple[str, bool]:
    """The text up to `limit` tokens, and whether anything was lost."""
    tokens = list(TOKEN.finditer(text))
    return (text[: tokens[limit - 1].end()], True) if len(tokens) > limit else (text, False)


def _chunks(completion: Document) -> list[Document]:
    """A completion as the chunks of a stream; the last one carries the usage."""
    choice = cast("Document", completion["choices"][0])
    message = cast("Document", choice["message"])
    deltas: list[Document] = [{"content": piece} for piece in PIECE.findall(message["content"])]
    deltas += [{"tool_calls": [{"index": at, **call}]} for at, call in enumerate(message.get("tool_calls") or [])]
    base = {"object": "chat.completion.chunk", "model": completion["model"]}
    parts = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    end: Document = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    return [*parts, {**base, "choices": [end], "usage": completion["usage"], "llmasos": completion["llmasos"]}]


def _embed(request: dict[str, Any]) -> Document:
    """Vectors of hashed words: texts that share words are near each other, as with a real model."""
    texts = cast("list[str]", request["input"])
    used = sum(count_tokens(text) for text in texts)
    return {
        "object": "list",
        "model": request.get("model") or NAME,
        "data": [{"index": at, "embedding": _vector(text)} for at, text in enumerate(texts)],
        "usage": {"prompt_tokens": used, "completion_tokens": 0, "total_tokens": used},
        "llmasos": {"notices": [], "cost_micro_usd": 0},
    }


def _vector(text: str) -> list[float]:
    counts = [0.0] * DIMENSIONS
    for word in TOKEN.findall(text.lower()):
        digest = hashlib.sha256(word.encode()).digest()
        counts[digest[0] % DIMENSIONS] += 1.0
    length = math.sqrt(sum(count * count for count in counts)) or 1.0
    return [count / length for count in counts]
