"""`/v1`: models in the form of OpenAI's API, under the caller's own rights and quotas.

Requests have the fields of `GenerateRequest` and `EmbedRequest`; unknown fields are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, cast

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import format_sse_event
from typing_extensions import override

from llmasos.capabilities.model import embedding, generation, streamed_generation
from llmasos.errors import (
    Cancelled,
    Denied,
    Invalid,
    LlmasosError,
    NotFound,
    QuotaExceeded,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from llmasos.invocations.events import FollowedInvocation, Sink
from llmasos.kernel.capability import Operation
from llmasos.kernel.invocation import Invocation
from llmasos_server.rest import sse
from llmasos_server.rest.context import host_of
from llmasos_server.rest.following import GONE, end_when_revoked, json_body, unless_gone
from llmasos_server.rest.identity import Caller, MayRun
from llmasos_server.rest.problems import (
    BodyTooLarge,
    InvalidJson,
    RequestTimeout,
    ScopeMissing,
    UnsupportedMediaType,
    problem_of,
    responses,
)

router = APIRouter(prefix="/v1", tags=["models"])

_FAILURES: Final = responses(
    InvalidJson,
    Unauthenticated,
    Denied,
    ScopeMissing,
    NotFound,
    RequestTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    Invalid,
    QuotaExceeded,
    Cancelled,
    LlmasosError,
    Unavailable,
    TimedOut,
)
_OBJECT: Final = {"type": "object", "additionalProperties": True}
_CHUNKS: Final = {"type": "string", "description": "Chat-completion chunks as `data:` lines, then `data: [DONE]`."}


def _body(description: str, example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": _OBJECT, "example": example}}
    return {"requestBody": {"required": True, "description": description, "content": content}}


@router.post(
    "/chat/completions",
    operation_id="create_chat_completion",
    summary="Ask a model",
    responses={
        200: {
            "description": "A chat completion, or its chunks if `stream` is true.",
            "content": {"application/json": {"schema": _OBJECT}, sse.MEDIA_TYPE: {"schema": _CHUNKS}},
        },
        **_FAILURES,
    },
    openapi_extra=_body(
        "A chat-completion request. `tier`, `task` and `language` choose a model if none is named.",
        {"messages": [{"role": "user", "content": "Good morning"}], "max_tokens": 100},
    ),
)
async def create_chat_completion(request: Request, caller: MayRun) -> Response:
    """Call a model by name, or let the host select one. The answer's `llmasos` has remarks on it."""
    value = _without_app(caller, await json_body(request))
    streamed = value.pop("stream", False)
    value.pop("stream_options", None)  # usage is always in the last chunk
    if streamed is not True:
        return await _whole(request, caller, generation(value), value)
    operation = streamed_generation(value)

    programs = host_of(request).programs

    async def start(emit: Sink[dict[str, Any]], on_start: Callable[[Invocation], None]) -> None:
        async with aclosing(programs.streamed(caller.principal, operation, value, on_start)) as parts:
            async for part in parts:
                await emit(part)

    followed = FollowedInvocation[dict[str, Any], None](start, streamed=True)
    end_when_revoked(request, caller, followed)
    try:
        here = await unless_gone(request, followed, followed.begun())
    except BaseException:
        await followed.end()
        raise
    return ChunkStream(followed) if here else GONE


@router.post(
    "/embeddings",
    operation_id="create_embeddings",
    summary="Embed texts",
    responses={
        200: {"description": "A vector for each text.", "content": {"application/json": {"schema": _OBJECT}}},
        **_FAILURES,
    },
    openapi_extra=_body("Texts, and the model's name if it matters.", {"input": ["Good morning"]}),
)
async def create_embeddings(request: Request, caller: MayRun) -> Response:
    """One vector for each text."""
    value = _without_app(caller, await json_body(request))
    if isinstance(value.get("input"), str):
        value["input"] = [value["input"]]
    return await _whole(request, caller, embedding(value), value)


class ChunkStream(sse.FollowedStream[dict[str, Any], None]):
    """The chunks of a chat completion."""

    @override
    def item(self, item: dict[str, Any]) -> bytes:
        return format_sse_event(data_str=msgspec.json.encode(item).decode())

    @override
    def end(self, result: None) -> bytes:
        return format_sse_event(data_str="[DONE]")

    @override
    def failure(self, error: LlmasosError) -> bytes:
        problem = problem_of(error, locale=self._followed.locale, invocation=self._followed.id)
        return format_sse_event(data_str=f'{{"error":{problem.model_dump_json(exclude_none=True)}}}')


async def _whole(
    request: Request, caller: Caller, operation: Operation[dict[str, Any]], value: Mapping[str, Any]
) -> Response:
    programs = host_of(request).programs

    def start(
        _emit: Sink[dict[str, Any]], on_start: Callable[[Invocation], None]
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        return programs.whole(caller.principal, operation, value, on_start)

    followed = FollowedInvocation[dict[str, Any], dict[str, Any]](start, streamed=False)
    end_when_revoked(request, caller, followed)
    try:
        if not await unless_gone(request, followed, followed.settled()):
            return GONE
        return JSONResponse(await followed.result())
    finally:
        await followed.end()


def _without_app(caller: Caller, value: Any) -> dict[str, Any]:
    """Return the body if the caller's token is not bound to apps."""
    if caller.apps is not None:
        raise ScopeMissing
    if not isinstance(value, dict):
        raise Invalid
    return dict(cast("dict[str, Any]", value))
