"""litellm's answers as plain chat completions, and what they cost.

Written out by hand: `model_dump` of litellm's classes takes longer than the rest of the gateway together.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from typing import Any

from llmasos.gateway.models import ModelEntry
from llmasos.quotas.meters import NOTHING_USED, Used


@dataclass(frozen=True, slots=True)
class Counted:
    """The tokens of a call; `estimated` where the provider did not tell, and the host counted."""

    prompt: int
    completion: int
    estimated: bool = False

    def used(self, entry: ModelEntry) -> Used:
        """As the kernel settles it."""
        price = entry.price
        cost = None if price is None else price.cost_micro_usd(self.prompt, self.completion)
        return Used(self.prompt, self.completion, cost, entry.name)

    def as_usage(self) -> dict[str, int]:
        """As chat completions write it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(slots=True)
class Spent:
    """What a call used, known from when the provider answered: what comes after that may still fail."""

    used: Used = NOTHING_USED


@dataclass(frozen=True, slots=True)
class Remarks:
    """What the host adds to an answer, under the key `llmasos`."""

    notices: tuple[str, ...] = ()

    def with_notice(self, text: str) -> Remarks:
        """The same, and one line more."""
        return replace(self, notices=(*self.notices, text))

    def as_json(self, used: Used, counted: Counted | None = None) -> dict[str, Any]:
        """The object under `llmasos`."""
        remarks: dict[str, Any] = {"notices": list(self.notices), "cost_micro_usd": used.cost_micro_usd}
        if counted is not None and counted.estimated:
            remarks["usage_estimated"] = True
        return remarks


def counted_by(response: Any) -> Counted | None:
    """The usage that the provider told, or None. litellm fills in zeros where it was silent."""
    usage = getattr(response, "usage", None)
    if usage is None:
        return None
    prompt, completion = getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0
    return Counted(prompt, completion) if prompt or completion else None


def completion(response: Any, entry: ModelEntry) -> dict[str, Any]:
    """A whole answer, without usage."""
    choices: list[dict[str, Any]] = []
    for index, choice in enumerate(response.choices):
        message = choice.message
        plain: dict[str, Any] = {"role": "assistant", "content": message.content}
        if calls := tool_calls(message):
            plain["tool_calls"] = [{key: each[key] for key in ("id", "type", "function")} for each in calls]
        choices.append({"index": index, "message": plain, "finish_reason": choice.finish_reason or "stop"})
    return {
        "id": response.id or f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": entry.name,
        "choices": choices,
    }


def tool_calls(message: Any) -> list[dict[str, Any]]:
    """The tool calls of a message, or of a part of one, which carries an index too."""
    calls: list[dict[str, Any]] = []
    for position, call in enumerate(getattr(message, "tool_calls", None) or ()):
        function = call.function
        plain: dict[str, Any] = {
            "id": call.id,
            "type": "function",
            "function": {"name": function.name, "arguments": function.arguments},
        }
        index = getattr(call, "index", None)
        plain["index"] = position if index is None else index
        calls.append(plain)
    return calls


def part(chunk: Any, entry: ModelEntry, number: str) -> dict[str, Any] | None:
    """One part of a streamed answer, or None where it says nothing."""
    if not chunk.choices:
        return None
    choice = chunk.choices[0]
    delta = choice.delta
    plain: dict[str, Any] = {}
    if content := getattr(delta, "content", None):
        plain["content"] = content
    if calls := tool_calls(delta):
        plain["tool_calls"] = calls
    if not plain and not choice.finish_reason:
        return None
    part = blank_part(entry, number, choice.finish_reason)
    part["choices"][0]["delta"] = plain
    return part


def blank_part(entry: ModelEntry, number: str, reason: str | None) -> dict[str, Any]:
    """A part that says nothing but how the answer ended."""
    return {
        "id": number,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": entry.name,
        "choices": [{"index": 0, "delta": {}, "finish_reason": reason}],
    }
