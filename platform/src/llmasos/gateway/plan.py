"""A prepared request: which models may answer it, with which parameters, and the most it can use.

It is made once, before anything is reserved, and is used for each model that is then called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from llmasos.gateway.answers import Remarks
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.request import ChatMessage, GenerateRequest
from llmasos.gateway.steps import ModelCall
from llmasos.quotas.meters import Demand, Meter, Shrink, Used

DEFAULT_MAX_TOKENS = 1024

# A byte-level tokeniser never makes more tokens of a text than it has bytes, and chat templates add
# fewer than this many around a message; the engine's own instructions for schemas and tools are counted apart.
TOKENS_AROUND_A_MESSAGE = 16

TOKENS_TO_EXPLAIN_A_SHAPE = 256

# A shorter answer is not worth its prompt: the quota refuses the call instead of shrinking it further.
FLOOR_TOKENS = 16
FLOOR_TOKENS_OF_JSON = 64


@dataclass(frozen=True, slots=True)
class CallPlan:
    """A request that is ready to be sent to `entries`, in their order."""

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
        """The model that is called first."""
        return self.entries[0]

    @property
    def picture_addresses(self) -> tuple[str, ...]:
        """The pictures that are named by an address, and have to be fetched first."""
        urls = (part["image_url"]["url"] for part in _pictures(self.parameters))
        return tuple(dict.fromkeys(url for url in urls if not url.startswith("data:")))

    def with_pictures(self, fetched: Mapping[str, str]) -> CallPlan:
        """Return a copy with pictures as data in place of their addresses."""

        def inlined(part: dict[str, Any]) -> dict[str, Any]:
            url = part["image_url"]["url"] if part["type"] == "image_url" else ""
            return {**part, "image_url": {**part["image_url"], "url": fetched[url]}} if url in fetched else part

        messages = [
            {**message, "content": [inlined(part) for part in message["content"]]}
            if isinstance(message["content"], list)
            else message
            for message in self.parameters["messages"]
        ]
        return replace(self, parameters={**self.parameters, "messages": messages})

    @property
    def wants_json(self) -> bool:
        """Whether the answer is data instead of text."""
        return "response_format" in self.parameters

    @property
    def wants_object(self) -> bool:
        """Whether the data is an object."""
        shape = self.parameters.get("response_format", {})
        schema = shape.get("json_schema", {}).get("schema", {"type": "object"})
        return bool(schema.get("type") == "object")

    @property
    def demand(self) -> Demand:
        """The most that any of the models can use. If one has no known price, the price is unknown."""
        tokens = self.prompt_tokens + self.max_tokens
        amounts = {Meter.TOKENS: tokens}
        prices = [entry.price for entry in self.entries]
        costs = (price.cost_micro_usd(self.prompt_tokens, self.max_tokens) for price in prices if price is not None)
        if cost := max(costs, default=0):
            amounts[Meter.COST] = cost
        structured = self.wants_json or "tools" in self.parameters
        floor = min(self.max_tokens, FLOOR_TOKENS_OF_JSON if structured else FLOOR_TOKENS)
        return Demand(amounts, None in prices, Shrink(self.max_tokens, floor), self.entry.name)

    def used_at_most(self, granted: Demand) -> Used:
        """The charge from the reservation while the actual use is unknown."""
        prices = [entry.price for entry in self.entries]
        limit = self.granted_tokens(granted)
        costs = [price.cost_micro_usd(self.prompt_tokens, limit) if price is not None else None for price in prices]
        known = [cost for cost in costs if cost is not None]
        return Used(self.prompt_tokens, limit, None if None in costs else max(known), self.entry.name)

    def granted_tokens(self, granted: Demand) -> int:
        """The answer tokens that a reservation allows."""
        tokens = granted.amounts.get(Meter.TOKENS)
        return self.max_tokens if tokens is None else max(1, min(self.max_tokens, tokens - self.prompt_tokens))


def make_plan(
    request: GenerateRequest,
    entries: tuple[ModelEntry, ...],
    notices: tuple[str, ...],
    max_tokens: int | None,
    locale: str,
) -> CallPlan:
    """Prepare `request` for `entries`. `max_tokens` is the limit of the caller's grant, if any."""
    wanted = request.max_tokens or max_tokens or DEFAULT_MAX_TOKENS
    window = entries[0].context_window
    parameters = _parameters(request)
    return CallPlan(
        entries=entries,
        parameters=parameters,
        prompt_tokens=prompt_tokens_at_most(parameters, max(entry.picture_tokens for entry in entries)),
        max_tokens=min(wanted, max_tokens or wanted, window),
        remarks=Remarks(notices),
        locale=locale,
    )


def _parameters(request: GenerateRequest) -> dict[str, Any]:
    sent = request.model_dump(
        include={"temperature", "top_p", "seed", "stop", "tools", "tool_choice", "response_format"},
        by_alias=True,
        exclude_none=True,
    )
    if sent.get("response_format") == {"type": "text"}:
        del sent["response_format"]
    return {"messages": [_sent_message(message) for message in request.messages], **sent}


def _sent_message(message: ChatMessage) -> dict[str, Any]:
    # A turn that only calls tools has no content, and providers want that explicit.
    return {"content": None, **message.as_sent()}


def prompt_tokens_at_most(parameters: Mapping[str, Any], picture_tokens: int) -> int:
    """An upper bound on the tokens of what is sent, for any tokeniser.

    It counts every field that is sent, including fields that are added to the request later.
    """
    total = TOKENS_AROUND_A_MESSAGE
    for message in parameters["messages"]:
        total += TOKENS_AROUND_A_MESSAGE
        for field, value in message.items():
            if field == "content" and isinstance(value, list):
                total += sum(_part_tokens(part, picture_tokens) for part in cast(list[dict[str, Any]], value))
            elif field != "role" and value is not None:
                total += _bytes(value)
    for field, value in parameters.items():
        if field != "messages":
            total += _bytes(value)
    for shape in (parameters.get("tools"), parameters.get("response_format")):
        if shape:
            # Counted twice, for the words that explain it to a model without support for schemas.
            total += _bytes(shape) + TOKENS_TO_EXPLAIN_A_SHAPE
    return total


def texts_of(parameters: Mapping[str, Any]) -> tuple[str, int]:
    """All texts that are sent, joined, and the number of pictures."""
    texts: list[str] = []
    pictures = 0
    for message in parameters["messages"]:
        content = message["content"]
        parts = cast(list[dict[str, Any]], content) if isinstance(content, list) else []
        pictures += sum(part["type"] == "image_url" for part in parts)
        texts += [content] if isinstance(content, str) else [part.get("text", "") for part in parts]
        texts += [json.dumps(message["tool_calls"], ensure_ascii=False)] if "tool_calls" in message else []
    texts += [
        json.dumps(parameters[field], ensure_ascii=False)
        for field in ("tools", "response_format")
        if field in parameters
    ]
    return "\n".join(texts), pictures


def _pictures(parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    contents = (message["content"] for message in parameters["messages"])
    parts = (part for content in contents if isinstance(content, list) for part in cast(list[dict[str, Any]], content))
    return [part for part in parts if part["type"] == "image_url"]


def _part_tokens(part: dict[str, Any], picture_tokens: int) -> int:
    return picture_tokens if part["type"] == "image_url" else _bytes(part)


def _bytes(value: object) -> int:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return len(text.encode("utf-8", "surrogatepass"))
