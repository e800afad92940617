"""A streamed answer of a model: checked, filtered and counted, and an error if it breaks off."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from llmasos.gateway import answers
from llmasos.gateway.failures import BadAnswer
from llmasos.gateway.guard import filtered
from llmasos.gateway.json_stream import json_of
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.outcome import AnswerEnd
from llmasos.gateway.plan import CallPlan
from llmasos.gateway.provider_stream import ProviderStream
from llmasos.gateway.thinking import ThinkingApart, thought_first
from llmasos.gateway.tool_calls import ToolCallPieces
from llmasos.gateway.usage import SLACK_TOKENS, Counted
from llmasos.i18n import _
from llmasos.quotas.meters import NOTHING_USED, Used

if TYPE_CHECKING:
    from llmasos.gateway.gateway import Gateway


# A token has four or five characters on average, and comes in an event of its own at most; runs of blanks and
# events without text are why more is allowed.
CHARACTERS_OF_A_TOKEN: Final = 32
EVENTS_OF_A_TOKEN: Final = 4


class AnswerStream:
    """An answer in parts: chat-completion chunks as JSON; the last carries `usage` and `llmasos`."""

    def __init__(self, gateway: Gateway, plan: CallPlan, entry: ModelEntry, parts: ProviderStream, limit: int) -> None:
        self._gateway = gateway
        self._plan = plan
        self._entry = entry
        self._parts = parts
        self._limit = limit
        self._filters = gateway.filters(plan)
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._json = json_of(plan)
        self._pieces = ToolCallPieces()
        self._held_calls: dict[int, dict[str, Any]] = {}
        self._thinking = ThinkingApart(opened=entry.name in gateway.thinking_unopened)
        self._half = ""
        self._said: list[str] = []
        self._thought: list[str] = []
        self._calls: list[str] = []
        self._characters = 0
        self._events = 0
        self._reason = ""
        self._used = NOTHING_USED
        self._ended = False
        self._closed = False

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know at the start."""
        return self._plan.remarks.notices

    @property
    def used(self) -> Used:
        """Exact after the last part; after an earlier `close`, a count of the received text."""
        return self._used

    async def read(self) -> dict[str, Any] | None:
        """The next part, or None after the last.

        Raises:
            LlmasosError: The provider broke off, or sent no valid answer; the received text is counted.
        """
        while not self._ended:
            chunk = await self._parts.read()
            if chunk is None:
                return await self._last()
            part = answers.part(chunk, self._entry, self._id)
            self._bound()
            if part is None:
                continue
            choice = part["choices"][0]
            delta = choice["delta"]
            if "tool_calls" in delta:
                delta["tool_calls"] = [self._pieces.take(piece) for piece in delta["tool_calls"]]
            self._split(delta)
            self._note(delta)
            if self._json is not None and delta.get("content"):
                delta["content"] = self._json.feed(delta["content"])
            self._filter(delta)
            delta = {field: value for field, value in delta.items() if value != ""}
            choice["delta"] = delta
            if choice["finish_reason"]:
                # Reported in the last part, with the usage.
                self._reason, choice["finish_reason"] = choice["finish_reason"], None
            if delta:
                return part
        return None

    async def close(self) -> None:
        """Stop the generation, and count the received text. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._parts.close()
        if not self._ended:
            self._ended = True
            self._used = (await self._count()).used(self._entry)

    def _split(self, delta: dict[str, Any]) -> None:
        """Part the thinking from the text, and hold half a character back until its other half comes."""
        if "content" not in delta:
            return
        text = self._half + delta["content"]
        self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        said, thought = self._thinking.feed(answers.whole_characters(text.removesuffix(self._half)))
        delta["content"] = said
        if thought:
            delta["reasoning_content"] = delta.get("reasoning_content", "") + thought

    def _note(self, delta: dict[str, Any]) -> None:
        """Keep the received text, to count it."""
        calls = [
            f"{call['function']['name'] or ''}{call['function']['arguments']}" for call in delta.get("tool_calls", ())
        ]
        self._said.append(delta.get("content") or "")
        self._thought.append(delta.get("reasoning_content") or "")
        self._calls += calls
        self._characters += len(self._said[-1]) + len(self._thought[-1]) + sum(map(len, calls))

    def _bound(self) -> None:
        """End an answer that goes on without end, with text or without.

        Raises:
            BadAnswer: It is far beyond what was allowed.
        """
        self._events += 1
        most = self._limit + SLACK_TOKENS
        if (
            self._characters + self._thinking.held_characters > most * CHARACTERS_OF_A_TOKEN
            or self._events > most * EVENTS_OF_A_TOKEN
        ):
            raise BadAnswer(
                _(
                    "The answer of {entry} did not end at the {limit} tokens that it was allowed; run `llmasos models "
                    "test {entry}`.",
                    entry=self._entry.name,
                    limit=self._limit,
                ),
            )

    def _filter(self, delta: dict[str, Any]) -> None:
        """Pass a part through the guards' filters: text may be withheld, tool calls wait for the end."""
        if not self._filters:
            return
        delta.pop("reasoning_content", None)  # filters see text and tool calls; reasoning would pass unfiltered
        if delta.get("content"):
            delta["content"] = self._filters.feed(delta["content"])
        for call in delta.pop("tool_calls", ()):
            blank = {**call, "function": {"name": "", "arguments": ""}}
            whole = self._held_calls.setdefault(call["index"], blank)["function"]
            whole["name"] += call["function"]["name"] or ""
            whole["arguments"] += call["function"]["arguments"] or ""

    def _held_back(self, rest: str) -> dict[str, Any]:
        """The text that was withheld until the end: as possible thinking, outside JSON, or by the filters."""
        if self._json is not None:
            rest = self._json.feed(rest) + self._json.finish()
        rest = self._filters.feed(rest) + self._filters.finish()
        delta: dict[str, Any] = {"content": rest} if rest else {}
        if self._held_calls:
            calls = {"tool_calls": list(self._held_calls.values())}
            delta |= filtered(partial(self._gateway.filters, self._plan), calls)
        return delta

    async def _last(self) -> dict[str, Any]:
        rest, thought_to_the_end = self._thinking.finish()
        rest += answers.whole_characters(self._half)
        self._note({"content": rest, "reasoning_content": thought_to_the_end})
        counted = await self._count()
        self._ended = True
        self._used = counted.used(self._entry)
        self._reason = self._reason or answers.finish_reason(self._parts.finish_reason)
        if self._calls and self._reason == "stop":
            self._reason = "tool_calls"
        with answers.understood(self._entry):
            if self._reason == "tool_calls" and not self._calls:
                raise ValueError("it calls a tool, and names none")
            missing = self._pieces.finish()
        delta: dict[str, Any] = {"tool_calls": missing} if missing else {}
        self._filter(delta)
        said, thought = "".join(self._said), "".join(self._thought)
        if thought_first(said):  # it was shown already; from the next answer on it is held back
            self._gateway.thinking_unopened.add(self._entry.name)
        elif not thought:
            self._gateway.thinking_unopened.discard(self._entry.name)
        end = AnswerEnd(self._entry, self._reason, said, thought, bool(self._calls), self._limit)
        end.check_not_empty()
        remarks = end.remarks(self._plan)
        part = answers.blank_part(self._entry, self._id, self._reason)
        part["choices"][0]["delta"] = {**delta, **self._held_back(rest)}
        return {**part, "usage": counted.as_usage(), "llmasos": remarks.as_json(self._used, counted)}

    async def _count(self) -> Counted:
        completion = "".join((*self._thought, *self._said, *self._calls))
        return await self._gateway.count(self._entry, self._plan, self._limit, self._parts.reported, completion)
