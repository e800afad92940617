"""A streamed answer of a model: checked, filtered and counted, and an error if it breaks off."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

from llmasos.gateway import answers
from llmasos.gateway.guard import filtered
from llmasos.gateway.json_stream import JsonOnly
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.outcome import AnswerEnd
from llmasos.gateway.plan import CallPlan
from llmasos.gateway.provider_stream import ProviderStream
from llmasos.gateway.tool_calls import ToolCallPieces
from llmasos.gateway.usage import Counted
from llmasos.quotas.meters import NOTHING_USED, Used

if TYPE_CHECKING:
    from llmasos.gateway.gateway import Gateway


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
        self._json = JsonOnly(wants_object=plan.wants_object) if plan.wants_json else None
        self._pieces = ToolCallPieces()
        self._held_calls: dict[int, dict[str, Any]] = {}
        self._said: list[str] = []
        self._thought: list[str] = []
        self._calls: list[str] = []
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
            if part is None:
                continue
            choice = part["choices"][0]
            delta = choice["delta"]
            if "tool_calls" in delta:
                delta["tool_calls"] = [self._pieces.take(piece) for piece in delta["tool_calls"]]
            self._note(delta)
            if self._json is not None and delta.get("content"):
                delta["content"] = self._json.feed(delta["content"])
            self._filter(delta)
            if delta.get("content") == "":
                del delta["content"]
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

    def _note(self, delta: dict[str, Any]) -> None:
        """Keep the received text, to count it."""
        self._said.append(delta.get("content") or "")
        self._thought.append(delta.get("reasoning_content") or "")
        for call in delta.get("tool_calls", ()):
            self._calls.append(f"{call['function']['name'] or ''}{call['function']['arguments'] or ''}")

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

    def _held_back(self) -> dict[str, Any]:
        """The text that the filters withheld until the end."""
        rest = self._filters.feed(self._json.finish()) if self._json is not None else ""
        rest += self._filters.finish()
        delta: dict[str, Any] = {"content": rest} if rest else {}
        if self._held_calls:
            calls = {"tool_calls": list(self._held_calls.values())}
            delta |= filtered(partial(self._gateway.filters, self._plan), calls)
        return delta

    async def _last(self) -> dict[str, Any]:
        counted = await self._count()
        self._ended = True
        self._used = counted.used(self._entry)
        if self._calls and self._reason == "stop":
            self._reason = "tool_calls"
        said, thought = "".join(self._said), "".join(self._thought)
        end = AnswerEnd(self._entry, self._reason, said, thought, bool(self._calls), self._limit)
        end.check_not_empty()
        remarks = end.remarks(self._plan)
        part = answers.blank_part(self._entry, self._id, self._reason or "stop")
        part["choices"][0]["delta"] = self._held_back()
        return {**part, "usage": counted.as_usage(), "llmasos": remarks.as_json(self._used, counted)}

    async def _count(self) -> Counted:
        completion = "".join((*self._thought, *self._said, *self._calls))
        return await self._gateway.count(self._entry, self._plan, self._limit, self._parts.reported, completion)
