"""Normalises streamed tool calls: each call has an index of its own, and its id and name come once.

Servers differ: some give every call the index 0, some none, some repeat id and name with each piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class _Call:
    index: int
    id: str | None
    provider_index: int | None
    name: str = ""
    arguments: bool = False
    """Whether a piece of its arguments came."""


class ToolCallPieces:
    """Finds the call that a piece belongs to: by its id first, then by the provider's index, then by the order."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def take(self, piece: dict[str, Any]) -> dict[str, Any]:
        """Return a piece with its call's own index, and without an id or name that was sent before."""
        function = piece["function"]
        name, arguments = function["name"] or "", function["arguments"] or ""
        known = self._find(piece["id"], piece.get("index"), name)
        call = known or self._begin(piece["id"], piece.get("index"))
        new_name = "" if name == call.name else name
        call.name += new_name
        call.arguments = call.arguments or bool(arguments)
        return {
            "index": call.index,
            "id": None if known else call.id,
            "type": "function",
            "function": {"name": new_name or None, "arguments": arguments},
        }

    def _begin(self, id_: str | None, provider_index: int | None) -> _Call:
        call = _Call(len(self._calls), id_ or f"call_{len(self._calls)}", provider_index)
        self._calls.append(call)
        return call

    def _find(self, id_: str | None, provider_index: int | None, name: str) -> _Call | None:
        if id_:
            same = next((call for call in self._calls if call.id == id_), None)
            if same is not None or self._calls:
                return same
        if not self._calls:
            return None
        by_index = [
            call for call in self._calls if provider_index is not None and call.provider_index == provider_index
        ]
        if provider_index is not None and not by_index:
            return None
        call = by_index[-1] if by_index else self._calls[-1]
        # Without an id, a new name after the first call's arguments starts another call.
        return None if name and call.arguments and name != call.name else call
