"""`ctx.model`: language models, by task and tier rather than by name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, TypeVar, Unpack, cast, overload

from llmasos_sdk import schema
from llmasos_sdk.decoding import decode
from llmasos_sdk.docstrings import read
from llmasos_sdk.errors import AnswerUnusable, AppError, SchemaMismatch
from llmasos_sdk.host import Host, JsonValue
from llmasos_sdk.messages import message as _
from llmasos_sdk.records import record_of
from llmasos_sdk.results import (
    Completion,
    Document,
    Embeddings,
    completion_from,
    notices_from,
    tool_calls_from,
    usage_from,
)
from llmasos_sdk.signatures import signature_of

T = TypeVar("T")
Tier: TypeAlias = Literal["fast", "balanced", "best"]
Task: TypeAlias = Literal[
    "chat", "classify", "extract", "summarise", "translate", "write", "code", "reason", "question", "other"
]
Message: TypeAlias = Mapping[str, Any]
Tool: TypeAlias = "Mapping[str, Any] | Callable[..., object]"


class Options(TypedDict):
    """How a model is chosen and called; each may be left to the host.

    `task` and `language` (of the answer, BCP 47) help the host to choose; `tier` and `model` choose. With
    `require_fit`, the call fails with `Unavailable` rather than let a model answer that is not fit for both.
    `max_tokens` is cut to what the grant and the quotas leave. `tools` are functions, described by their hints and
    docstrings, or objects in the chat-completions shape.
    """

    system: NotRequired[str | None]
    model: NotRequired[str | None]
    tier: NotRequired[Tier | None]
    task: NotRequired[Task | None]
    language: NotRequired[str | None]
    require_fit: NotRequired[bool]
    max_tokens: NotRequired[int | None]
    temperature: NotRequired[float | None]
    top_p: NotRequired[float | None]
    seed: NotRequired[int | None]
    stop: NotRequired[Sequence[str] | None]
    tools: NotRequired[Sequence[Tool] | None]
    tool_choice: NotRequired[str | Mapping[str, Any] | None]


def tool_of(tool: Tool) -> dict[str, Any]:
    """A function as a tool in the chat-completions shape; an object passes as it is."""
    if isinstance(tool, Mapping):
        return {**tool}
    told = read(tool)
    parameters = schema.object_schema(*signature_of(tool, skip=0), told)
    name = str(getattr(tool, "__name__", "tool"))
    return {"type": "function", "function": {"name": name, "description": told.summary, "parameters": parameters}}


def request_of(prompt: str | Sequence[Message], options: Options) -> Document:
    """The chat-completions request of a call, with only the given options."""
    messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    given = {key: value for key, value in options.items() if value is not None}
    if system := given.pop("system", None):
        messages.insert(0, {"role": "system", "content": system})
    if tools := given.pop("tools", None):
        given["tools"] = [tool_of(tool) for tool in cast("Sequence[Tool]", tools)]
    if stop := given.pop("stop", None):
        given["stop"] = list(cast("Sequence[str]", stop))
    return {"messages": messages, **given}


def parse(completion: Completion[None], output: type[T]) -> Completion[T]:
    """The completion with its text read as `output`.

    Raises:
        AnswerUnusable: It is not JSON of that type, or was cut off.
    """
    try:
        parsed: T = decode(output, json.loads(completion.text), "the answer")
    except (ValueError, SchemaMismatch) as error:
        if completion.finish_reason == "length":
            raise AnswerUnusable(
                _("the model's answer was cut before its JSON ended; raise max_tokens, here and in the manifest")
            ) from error
        detail = (
            error.message
            if isinstance(error, SchemaMismatch)
            else _("it is not JSON, but {text!r}", text=completion.text[:80])
        )
        raise AnswerUnusable(
            _("the model did not answer as a {kind}: {detail}", kind=output.__name__, detail=detail)
        ) from error
    return dataclasses.replace(cast("Completion[Any]", completion), parsed=parsed)


class Stream:
    """A streamed answer: iterate over its pieces of text; `completion` is complete when the stream has ended.

    Leaving it early, as with `with`, ends the model's work.
    """

    def __init__(self, host: Host, number: int) -> None:
        self._host = host
        self._number = number
        self._pieces: list[str] = []
        self._calls: list[Document] = []
        self._last: Document = {}
        self._finish_reason = "stop"
        self._model = ""
        self._notices: tuple[str, ...] = ()
        self._open = True

    def __iter__(self) -> Generator[str]:
        """The pieces of text, in order of arrival."""
        try:
            while self._open:
                part = self._host.call("model", "read", self._number)
                if part is None:
                    break
                if text := self._take(json.loads(str(part))):
                    yield text
        finally:
            self.close()

    def _take(self, chunk: Document) -> str:
        self._model = str(chunk.get("model") or self._model)
        self._notices = (*self._notices, *notices_from(chunk))
        if chunk.get("usage") or chunk.get("llmasos"):
            self._last = {**self._last, **{key: chunk[key] for key in ("usage", "llmasos") if chunk.get(key)}}
        choices = cast("list[Document]", chunk.get("choices") or [])
        if not choices:
            return ""
        self._finish_reason = str(choices[0].get("finish_reason") or self._finish_reason)
        delta = cast("Document", choices[0].get("delta") or {})
        for part in cast("list[Document]", delta.get("tool_calls") or []):
            self._take_tool_call(part)
        text = str(delta.get("content") or "")
        self._pieces.append(text)
        return text

    def _take_tool_call(self, part: Document) -> None:
        """Add a piece to its call. A call's id and name arrive first, then its arguments in pieces."""
        told = cast("Document", part.get("function") or {})
        name = str(told.get("name") or "")
        call = self._call_of(part, name)
        if call is None:
            call = {"id": part.get("id") or "", "index": part.get("index"), "function": {"name": "", "arguments": ""}}
            self._calls.append(call)
        function = cast("dict[str, str]", call["function"])
        if name != function["name"]:  # some servers repeat it with each piece
            function["name"] += name
        function["arguments"] += str(told.get("arguments") or "")

    def _call_of(self, part: Document, name: str) -> Document | None:
        """The call that a piece belongs to: by its id, then by its index, then the last; None begins another."""
        if part.get("id"):
            return next((call for call in self._calls if call["id"] == part["id"]), None)
        index = part.get("index")
        same = [call for call in self._calls if index is None or call["index"] == index]
        if not same or (name and same[-1]["function"]["arguments"] and name != same[-1]["function"]["name"]):
            return None
        return same[-1]

    @property
    def completion(self) -> Completion[None]:
        """The completion received until now; its usage is exact once the stream ended."""
        return Completion(
            text="".join(self._pieces),
            model=self._model,
            parsed=None,
            usage=usage_from(self._last),
            tool_calls=tool_calls_from({"tool_calls": self._calls}),
            notices=self._notices,
            finish_reason=self._finish_reason,
        )

    def close(self) -> None:
        """End the stream. Safe to call twice."""
        if self._open:
            self._open = False
            # If the invocation is ending, so is the stream, and the error that ended it is the one to show.
            with contextlib.suppress(AppError):
                self._host.call("model", "close", self._number)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


class ModelClient:
    """`ctx.model`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @overload
    def generate(
        self, prompt: str | Sequence[Message], *, output: type[T], **options: Unpack[Options]
    ) -> Completion[T]: ...
    @overload
    def generate(
        self, prompt: str | Sequence[Message], *, output: None = None, **options: Unpack[Options]
    ) -> Completion[None]: ...
    def generate(
        self, prompt: str | Sequence[Message], *, output: type[Any] | None = None, **options: Unpack[Options]
    ) -> Completion[Any]:
        """Call a model, and wait for its whole answer.

        Args:
            prompt: The user's text, or a conversation in chat-completions form.
            output: A dataclass or a TypedDict that the answer must fill; the result's `parsed` is one.
            **options: See `Options`.

        Raises:
            AnswerUnusable: With `output`, the model's answer does not match.
            Denied: The grant does not include that model.
            QuotaExceeded: A quota is used up.
            Unavailable: No model could be reached.
        """
        request = request_of(prompt, options)
        if output is not None:
            if record_of(output) is None:
                raise TypeError("output= takes a dataclass or a TypedDict; put a list or a Literal into a field of one")
            described = {"name": output.__name__, "schema": schema.schema_of(output)}
            request["response_format"] = {"type": "json_schema", "json_schema": described}
        completion = completion_from(self._ask("generate", request))
        return completion if output is None else parse(completion, output)

    def stream(self, prompt: str | Sequence[Message], **options: Unpack[Options]) -> Stream:
        """Call a model, and stream its answer: `yield from ctx.model.stream(...)`."""
        number = self._host.call("model", "open", json.dumps(request_of(prompt, options), ensure_ascii=False))
        return Stream(self._host, cast("int", number))

    def embed(self, texts: str | Sequence[str], *, model: str | None = None) -> Embeddings:
        """The vectors of one text or of several; the manifest asks for it by `embeddings = true`."""
        request: Document = {"input": [texts] if isinstance(texts, str) else list(texts)}
        if model is not None:
            request["model"] = model
        answer = self._ask("embed", request)
        rows = cast("list[Document]", answer.get("data") or [])
        vectors = tuple(tuple(float(number) for number in row["embedding"]) for row in rows)
        return Embeddings(vectors=vectors, model=str(answer.get("model") or ""), usage=usage_from(answer))

    def count_tokens(self, text: str) -> int:
        """How many tokens a text is, to the first model of the grant; for another model it is an estimate."""
        return cast("int", self._host.call("model", "count-tokens", text))

    def _ask(self, function: str, request: Document) -> Document:
        answer: JsonValue = self._host.call("model", function, json.dumps(request, ensure_ascii=False))
        return cast("Document", json.loads(str(answer)))
