"""Passes an answer through the guards' filters: streamed text in parts, whole texts and tool calls at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class TextFilter(Protocol):
    """Rewrites an answer while it arrives. A whole answer is fed in one piece, a stream in parts."""

    def feed(self, text: str) -> str:
        """Add a part; return the text that can be shown now."""
        ...

    def finish(self) -> str:
        """Return the withheld text; called at the end of the answer."""
        ...


class Filters:
    """A chain of filters."""

    def __init__(self, filters: list[TextFilter]) -> None:
        self._filters = filters

    def __bool__(self) -> bool:
        return bool(self._filters)

    def feed(self, text: str) -> str:
        """Return the text that can be shown now."""
        for each in self._filters:
            text = each.feed(text)
        return text

    def finish(self) -> str:
        """Return the text that each withheld, passed through the filters after it."""
        rest = ""
        for each in self._filters:
            rest = each.feed(rest) + each.finish()
        return rest


def filtered(new_filters: Callable[[], Filters], message: dict[str, Any]) -> dict[str, Any]:
    """Pass a message's text, and the arguments of each tool call, through filters of their own."""

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
