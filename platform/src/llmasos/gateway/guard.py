"""Puts an answer through the guards' filters: streamed text in parts, whole texts and tool calls at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class TextFilter(Protocol):
    """Rewrites an answer while it arrives. A whole answer is fed in one piece, a stream in parts."""

    def feed(self, text: str) -> str:
        """Take a part; return what can be shown by now."""
        ...

    def finish(self) -> str:
        """Return what was held back; called at the end of the answer."""
        ...


class Filters:
    """Filters in a row, as one."""

    def __init__(self, filters: list[TextFilter]) -> None:
        self._filters = filters

    def __bool__(self) -> bool:
        return bool(self._filters)

    def feed(self, text: str) -> str:
        """What can be shown by now."""
        for each in self._filters:
            text = each.feed(text)
        return text

    def finish(self) -> str:
        """What each held back, passed through the filters after it."""
        rest = ""
        for each in self._filters:
            rest = each.feed(rest) + each.finish()
        return rest


def filtered(new_filters: Callable[[], Filters], message: dict[str, Any]) -> dict[str, Any]:
    """A message with its text, and the arguments of each tool call, put through filters of their own."""

    def through(text: str) -> str:
        filters = new_filters()
        return filters.feed(text) + filters.finish()

    changed = dict(message)
    if changed.get("content"):
        changed["content"] = through(changed["content"])
    if changed.get("tool_calls"):
        changed["tool_calls"] = [
            {**each, "function": {**each["function"], "arguments": through(each["function"]["arguments"] or "")}}
            for each in changed["tool_calls"]
        ]
    return changed
