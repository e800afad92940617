"""A model with scripted answers: a real provider behind the real litellm."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmasos.gateway.engine import Engine
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.models import FREE, ModelEntry, Price
from llmasos.gateway.registry import ModelRegistry
from llmasos.gateway.steps import Steps

SCRIPTED = "llmasos-scripted"


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """One answer: its parts, and how it ends. A `usage` of None stands for a provider that does not report it."""

    parts: tuple[str, ...] = ("ok",)
    usage: tuple[int, int] | None = (3, 2)
    finish_reason: str = "stop"
    tool_calls: tuple[dict[str, Any], ...] = ()
    delay_seconds: float = 0.0
    """Before each part."""
    error: Exception | None = None
    """Raised after the parts."""


def _one_reply() -> deque[ScriptedReply]:
    return deque([ScriptedReply()])


@dataclass
class ScriptedProvider:
    """Returns `replies` in order, repeats the last one, and records the requests."""

    replies: deque[ScriptedReply] = field(default_factory=_one_reply)
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    cancelled: int = 0
    """How many answers the caller cancelled."""
    running: int = 0
    most_running: int = 0

    def say(self, *replies: ScriptedReply | str) -> None:
        """Set the next answers."""
        self.replies = deque(ScriptedReply((reply,)) if isinstance(reply, str) else reply for reply in replies)

    def _next(self, messages: object, optional_params: dict[str, Any]) -> ScriptedReply:
        self.requests.append({"messages": messages, **optional_params})
        return self.replies.popleft() if len(self.replies) > 1 else self.replies[0]

    async def acompletion(self, *_: Any, **call: Any) -> Any:
        """A whole answer."""
        reply = self._next(call["messages"], call["optional_params"])
        text = "".join([part async for part in self._spoken(reply)])
        response = call["model_response"]
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if reply.tool_calls:
            message["tool_calls"] = list(reply.tool_calls)
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
        response.choices = type(response)(choices=[choice]).choices
        response.model = call["model"]
        if reply.usage:
            prompt, completion = reply.usage
            response.usage.prompt_tokens, response.usage.completion_tokens = prompt, completion
            response.usage.total_tokens = prompt + completion
        return response

    async def astreaming(self, *_: Any, **call: Any) -> AsyncIterator[Any]:
        """An answer in parts."""
        reply = self._next(call["messages"], call["optional_params"])
        async for part in self._spoken(reply):
            yield {"text": part, "is_finished": False, "finish_reason": "", "usage": None, "index": 0, "tool_use": None}
        for index, tool in enumerate(reply.tool_calls):
            use = {**tool, "index": index}
            yield {"text": "", "is_finished": False, "finish_reason": "", "usage": None, "index": 0, "tool_use": use}
        usage = reply.usage and {
            "prompt_tokens": reply.usage[0],
            "completion_tokens": reply.usage[1],
            "total_tokens": sum(reply.usage),
        }
        end = {"text": "", "is_finished": True, "finish_reason": reply.finish_reason, "usage": usage, "index": 0}
        yield {**end, "tool_use": None}

    async def aembedding(self, *_: Any, **call: Any) -> Any:
        """A vector of four numbers for each text; the first is the text's length."""
        texts = call["input"]
        response = call["model_response"]
        response.model = call["model"]
        response.data = [
            {"object": "embedding", "index": index, "embedding": [float(len(text)), 0.0, 0.0, 1.0]}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": len(texts), "completion_tokens": 0, "total_tokens": len(texts)}
        response.usage = type(response)(usage=usage).usage
        return response

    async def _spoken(self, reply: ScriptedReply) -> AsyncIterator[str]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            for part in reply.parts:
                await asyncio.sleep(reply.delay_seconds)
                yield part
            if reply.error is not None:
                raise reply.error
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def scripted_entry(name: str = "scripted", **fields: Any) -> ModelEntry:
    """A configured model of the scripted provider."""
    known: dict[str, Any] = {"tier": "fast", "price": FREE, "goes_to": "local", "retries": 0}
    return ModelEntry(name=name, litellm=f"{SCRIPTED}/{name}", **{**known, **fields})


def scripted_gateway(
    home: Path, provider: ScriptedProvider, *entries: ModelEntry, steps: Steps | None = None
) -> Gateway:
    """A gateway with these models, or with two, `scripted` and `priced`, before the built-in ones."""
    models = entries or (
        scripted_entry(),
        scripted_entry("priced", tier="balanced", price=Price(input=1_000_000, output=2_000_000)),
        scripted_entry("scripted-embedding", kind="embedding"),
    )
    return Gateway(ModelRegistry(home, extra=models), Engine({SCRIPTED: provider}), steps=steps)
