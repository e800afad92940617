"""The custom provider that litellm calls for the embedded models, with the interface of its `CustomLLM`.

Each call has its own connection, whose end stops the engine, also at a cancellation.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmasos.errors import Invalid, LlmasosError, ModelUnavailable
from llmasos.gateway.embedded.local import Lane, LocalModels
from llmasos.gateway.embedded.process import EngineProcess
from llmasos.gateway.embedded.repetition import Repetition
from llmasos.gateway.embedded.shapes import EngineRequest, Said, engine_request, read_tools
from llmasos.gateway.failures import ContextTooLong
from llmasos.i18n import _

if TYPE_CHECKING:
    import httpx  # imported by the first call, which saves time in commands that call no model

# The gateway limits the whole call; this limit is for an engine that accepts a connection and sends nothing.
SILENCE_SECONDS = 600.0

# About 500 tokens, which a processor reads in a second or two; 3,000 took it 60 s while it was busy.
SHORT_CHARACTERS = 2000

# Small models put JSON into a Markdown fence; a cut answer has only the opening line.
FENCE = "```json"

# litellm wants every key in every part.
PART: dict[str, Any] = {
    "text": "",
    "tool_use": None,
    "is_finished": False,
    "finish_reason": "",
    "usage": None,
    "index": 0,
}


# Characters that control tokens begin with or contain: <|im_start|>, [INST], <s>, <｜User｜>, ▁<EOT>, {{…}}.
_MAY_CONTROL = re.compile(r"[<\[|｜▁{]")


@dataclass(slots=True)
class _Answer:
    """How an answer ended, and its use."""

    reason: str = "stop"
    usage: dict[str, int] = field(default_factory=dict[str, int])


class EmbeddedProvider:
    """Serves calls with the engines of `local`."""

    def __init__(self, local: LocalModels) -> None:
        self._local = local

    async def acompletion(self, *_: Any, **call: Any) -> Any:
        """Return a whole answer in litellm's ModelResponse, which is an argument of the call."""
        asked = engine_request(call["messages"], call["optional_params"])
        answer = _Answer()
        async with self._client(call["model"], _lane(asked)) as client:
            # Streamed here too, so that a loop is detected.
            text = "".join([part async for part in self._speak(client, asked, answer)])
        if asked.schema is not None:
            text = text.removeprefix(FENCE).lstrip()
        said = read_tools(text, answer.reason) if asked.calls_tools else Said(text, answer.reason)
        response = call["model_response"]
        message: dict[str, Any] = {"role": "assistant", "content": said.content}
        if said.tool_calls:
            message["tool_calls"] = list(said.tool_calls)
        plain = {"index": 0, "message": message, "finish_reason": said.finish_reason}
        response.choices = type(response)(choices=[plain]).choices
        response.model = call["model"]
        for name, count in answer.usage.items():
            setattr(response.usage, name, count)
        return response

    async def astreaming(self, *_: Any, **call: Any) -> AsyncIterator[Any]:
        """An answer in parts, as litellm's GenericStreamingChunk. The end and the usage come in one part, the last."""
        asked = engine_request(call["messages"], call["optional_params"])
        answer, held = _Answer(), list[str]()
        async with self._client(call["model"], _lane(asked)) as client:
            async for text in self._speak(client, asked, answer):
                if asked.calls_tools:
                    held.append(text)  # a choice of tools is read whole
                else:
                    yield {**PART, "text": text}
        said = read_tools("".join(held), answer.reason) if asked.calls_tools else Said("", answer.reason)
        for index, tool in enumerate(said.tool_calls):
            yield {**PART, "tool_use": {**tool, "index": index}}
        yield {
            **PART,
            "text": said.content or "",
            "is_finished": True,
            "finish_reason": said.finish_reason,
            "usage": answer.usage,
        }

    async def aembedding(self, *_: Any, **call: Any) -> Any:
        """Embeddings, as litellm's EmbeddingResponse."""
        async with self._client(call["model"]) as client:
            answer = _checked(await client.post("/v1/embeddings", json={"input": call["input"]})).json()
        response = call["model_response"]
        response.model = call["model"]
        response.data = answer["data"]
        response.usage = type(response)(usage={**answer["usage"], "completion_tokens": 0}).usage
        return response

    async def count_tokens(self, model: str, text: str) -> int:
        """Count the tokens of a text with the model's own tokeniser."""
        async with self._client(model) as client:
            return len(_checked(await client.post("/tokenize", json={"content": text})).json()["tokens"])

    async def count_prompt(self, model: str, parameters: Mapping[str, Any]) -> int:
        """Count the tokens of a whole prompt, including the model's template."""
        asked = engine_request(parameters["messages"], parameters)
        async with self._client(model) as client:
            return await _prompt_tokens(client, await without_control_tokens(client, asked.body))

    async def read_ahead(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Read a prompt into the engine's cache. A failure is ignored: the call itself reports it."""
        import httpx  # noqa: PLC0415

        with suppress(LlmasosError, httpx.HTTPError):
            asked = engine_request(parameters["messages"], parameters)
            async with self._client(model, _lane(asked)) as client:
                body = await without_control_tokens(client, asked.body)
                await client.post("/v1/chat/completions", json={**body, "max_tokens": 0})

    async def _speak(self, client: httpx.AsyncClient, asked: EngineRequest, answer: _Answer) -> AsyncGenerator[str]:
        """Yield the pieces of an answer; `answer` is filled in at the end."""
        plain = await without_control_tokens(client, asked.body)
        body = {**plain, "stream": True, "stream_options": {"include_usage": True}}
        repetition, said = Repetition(), list[str]()
        async with client.stream("POST", "/v1/chat/completions", json=body) as sent:
            if sent.status_code >= 400:
                await sent.aread()
            async for event in _events(_checked(sent)):
                if event.get("usage"):
                    answer.usage = _usage(event)
                for choice in event.get("choices") or ():
                    answer.reason = choice.get("finish_reason") or answer.reason
                    if text := choice["delta"].get("content"):
                        said.append(text)
                        yield text
                if said and repetition.feed(said[-1] if event.get("choices") else ""):
                    answer.reason = "length"
                    break
        if not answer.usage:
            # Broken off: leaving the block above ended the generation before the engine reported its use.
            prompt, completion = await _prompt_tokens(client, plain), await _tokens(client, "".join(said))
            answer.usage = {
                "prompt_tokens": prompt,
                "completion_tokens": len(completion),
                "total_tokens": prompt + len(completion),
            }

    @asynccontextmanager
    async def _client(self, model: str, lane: Lane = "short") -> AsyncGenerator[httpx.AsyncClient]:
        import httpx  # noqa: PLC0415

        engine: EngineProcess = await self._local.engine(model, lane)
        async with engine.running() as address:
            headers = {"authorization": f"Bearer {address.key}"}
            try:
                async with httpx.AsyncClient(
                    base_url=address.url,
                    headers=headers,
                    timeout=SILENCE_SECONDS,
                    trust_env=False,  # no proxy between a host and its own engine
                    verify=False,  # noqa: S501 - no TLS on loopback; making its context takes 20 ms
                ) as client:
                    yield client
            except httpx.TransportError as error:
                raise await engine.failure() from error


def _lane(asked: EngineRequest) -> Lane:
    """The lane of a call: `long` where a grammar or a long prompt would make others wait."""
    characters = sum(len(message["content"]) for message in asked.body["messages"])
    return "short" if asked.schema is None and characters <= SHORT_CHARACTERS else "long"


async def without_control_tokens(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """Return the body with texts that the engine reads only as text: a written `<|im_end|>` ends no turn.

    Raises:
        Invalid: A text still holds a control token of this model.
    """
    messages: list[dict[str, Any]] = body["messages"]
    text = "\n".join(message["content"] for message in messages)
    if not _MAY_CONTROL.search(text) or await _is_text_alone(client, text):
        return body
    # Broken by a zero-width character; the engine itself tells whether that was enough.
    broken = [{**each, "content": _MAY_CONTROL.sub("\\g<0>\u200b", each["content"])} for each in messages]
    if not await _is_text_alone(client, "\n".join(message["content"] for message in broken)):
        raise Invalid(_("The text holds a control token of this model, which may not be written in a message."))
    return {**body, "messages": broken}


async def _is_text_alone(client: httpx.AsyncClient, text: str) -> bool:
    return await _tokens(client, text, control=True) == await _tokens(client, text)


async def _tokens(client: httpx.AsyncClient, text: str, *, control: bool = False) -> list[int]:
    asked = {"content": text, "add_special": False, "parse_special": control}
    tokens: list[int] = _checked(await client.post("/tokenize", json=asked)).json()["tokens"]
    return tokens


async def _prompt_tokens(client: httpx.AsyncClient, body: dict[str, Any]) -> int:
    """Count the tokens of a prompt, including the model's template."""
    prompt = _checked(await client.post("/apply-template", json=body)).json()["prompt"]
    text = {"content": prompt, "add_special": True, "parse_special": True}
    return len(_checked(await client.post("/tokenize", json=text)).json()["tokens"])


def _checked(response: httpx.Response) -> httpx.Response:
    """Convert the engine's errors into ours."""
    if response.status_code < 400:
        return response
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        raise ModelUnavailable(_("The engine returned {status_code}.", status_code=response.status_code)) from None
    message = str(error.get("message", ""))
    if error.get("type") == "exceed_context_size_error":
        asked, window = error.get("n_prompt_tokens"), error.get("n_ctx")
        raise ContextTooLong(
            _(
                "The text has {asked} tokens, and this model reads {window} at most; shorten it.",
                asked=asked,
                window=window,
            ),
        )
    if response.status_code < 500:
        raise Invalid(_("The engine refuses the request: {message}", message=message[:300]))
    raise ModelUnavailable(_("The engine failed: {message}", message=message[:300]))


def _usage(answer: dict[str, Any]) -> dict[str, int]:
    usage = answer["usage"]
    return {name: int(usage[name]) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the engine's server-sent events; raise an error among them."""
    from httpx_sse import EventSource  # noqa: PLC0415

    async for sent in EventSource(response).aiter_sse():
        if not sent.data or sent.data == "[DONE]":
            continue
        event: dict[str, Any] = json.loads(sent.data)
        if "error" in event:
            raise ModelUnavailable(
                _("The engine failed: {error}", error=str(event["error"].get("message"))[:300]),
            )
        yield event
