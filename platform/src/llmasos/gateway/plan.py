"""A request made ready: which models may answer it, with what, and the most it can use.

Made once, before anything is reserved; parsed and measured once, however many models are then asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from llmasos.gateway.answers import Remarks
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.request import GenerateRequest, Message
from llmasos.gateway.steps import ModelCall
from llmasos.quotas.meters import Demand, Meter, Shrink

DEFAULT_MAX_TOKENS = 1024

# A byte-level tokeniser never makes more tokens of a text than it has bytes, and the templates of chat models put
# fewer than this many around a message; the engine's own instructions for schemas and tools are counted apart.
TOKENS_AROUND_A_MESSAGE = 16

# Providers count at most about 1,600 tokens for an image at the highest detail they take; sound is told by its size.
TOKENS_AN_IMAGE = 2048

# Below this an answer is not worth its prompt, so that a quota refuses instead of shrinking further.
FLOOR_TOKENS = 16
FLOOR_TOKENS_OF_JSON = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """A request, ready to be asked of `entries` in their order."""

    entries: tuple[ModelEntry, ...]
    parameters: dict[str, Any]
    """What litellm takes, without the model and `max_tokens`."""
    prompt_tokens: int
    """At most so many."""
    max_tokens: int
    remarks: Remarks
    locale: str
    call: ModelCall | None = None
    """As the guards left it, for those after the call."""

    @property
    def entry(self) -> ModelEntry:
        """The model that is asked first."""
        return self.entries[0]

    @property
    def wants_json(self) -> bool:
        """Whether the answer is data and no text."""
        return "response_format" in self.parameters

    @property
    def demand(self) -> Demand:
        """The most that any of the models can use. One with an unknown price makes the price unknown."""
        tokens = self.prompt_tokens + self.max_tokens
        amounts = {Meter.TOKENS: tokens}
        prices = [entry.price for entry in self.entries]
        costs = (price.cost_micro_usd(self.prompt_tokens, self.max_tokens) for price in prices if price is not None)
        if cost := max(costs, default=0):
            amounts[Meter.COST] = cost
        structured = self.wants_json or "tools" in self.parameters
        floor = min(self.max_tokens, FLOOR_TOKENS_OF_JSON if structured else FLOOR_TOKENS)
        return Demand(amounts, None in prices, Shrink(self.max_tokens, floor), self.entry.name)

    def granted_tokens(self, granted: Demand) -> int:
        """The tokens of the answer that a reservation leaves."""
        tokens = granted.amounts.get(Meter.TOKENS)
        return self.max_tokens if tokens is None else max(1, min(self.max_tokens, tokens - self.prompt_tokens))


def make_plan(
    request: GenerateRequest,
    entries: tuple[ModelEntry, ...],
    notices: tuple[str, ...],
    max_tokens: int | None,
    locale: str,
) -> Plan:
    """Ready `request` for `entries`. `max_tokens` is the most that the caller's grant allows, if it has one."""
    wanted = request.max_tokens or max_tokens or DEFAULT_MAX_TOKENS
    window = entries[0].context_window
    return Plan(
        entries=entries,
        parameters=_parameters(request),
        prompt_tokens=prompt_tokens_at_most(request),
        max_tokens=min(wanted, max_tokens or wanted, window),
        remarks=Remarks(notices),
        locale=locale,
    )


def _parameters(request: GenerateRequest) -> dict[str, Any]:
    parameters: dict[str, Any] = {"messages": [_plain(message) for message in request.messages]}
    for name in ("temperature", "top_p", "seed", "stop", "tools", "tool_choice"):
        value = getattr(request, name)
        if value is not None:
            parameters[name] = value
    if request.response_format is not None and request.response_format.get("type") != "text":
        parameters["response_format"] = request.response_format
    return parameters


def _plain(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    for name in ("name", "tool_calls", "tool_call_id"):
        value = getattr(message, name)
        if value is not None:
            plain[name] = value
    return plain


def prompt_tokens_at_most(request: GenerateRequest) -> int:
    """No tokeniser makes more tokens of this prompt."""
    total = TOKENS_AROUND_A_MESSAGE
    for message in request.messages:
        total += TOKENS_AROUND_A_MESSAGE + _content_bytes(message.content)
        if message.tool_calls:
            total += _json_bytes(message.tool_calls)
    for shape in (request.tools, request.response_format):
        if shape:
            # Once for the shape, and once for the words that explain it to a model that does not know of shapes.
            total += 2 * _json_bytes(shape) + 256
    return total


def _content_bytes(content: str | list[dict[str, Any]] | None) -> int:
    if content is None:
        return 0
    if isinstance(content, str):
        return len(content.encode("utf-8", "surrogatepass"))
    images: int = sum(part.get("type") == "image_url" for part in content)
    rest = [part for part in content if part.get("type") != "image_url"]
    return images * TOKENS_AN_IMAGE + (_json_bytes(rest) if rest else 0)


def _json_bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
