"""Normalises streamed tool calls: each call has an index of its own, and its id and name come once.

Servers differ: some give every call the index 0, some none, some repeat id and name with each piece, some give each
piece another id. What tells two calls apart then is that the arguments of the first are complete.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

NO_ARGUMENTS: Final = "{}"


@dataclass(slots=True)
class _Call:
    index: int
    id: str
    provider_id: str | None
    provider_index: int | None
    name: str = ""
    arguments: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether its arguments are JSON as they are, so that no more of them can follow."""
        if not self.arguments.rstrip().endswith("}"):
            return False
        try:
            json.loads(self.arguments)
        except (ValueError, RecursionError):
            return False
        return True


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
        # Some repeat the name, some repeat it as far as it is known.
        new_name = name[len(call.name) :] if name.startswith(call.name) else name
        call.name += new_name
        call.arguments += arguments
        return _piece(call.index, None if known else call.id, new_name or None, arguments)

    def finish(self) -> list[dict[str, Any]]:
        """The pieces that are still missing at the end: arguments that are JSON, of calls without any.

        Raises:
            ValueError: A call names no function.
        """
        if not all(call.name for call in self._calls):
            raise ValueError("a tool call names no function")
        return [_piece(call.index, None, None, NO_ARGUMENTS) for call in self._calls if not call.arguments.strip()]

    def _begin(self, id_: str | None, provider_index: int | None) -> _Call:
        number = len(self._calls)
        taken = any(call.id == id_ for call in self._calls)
        call = _Call(number, f"call_{number}" if taken or not id_ else id_, id_ or None, provider_index)
        self._calls.append(call)
        return call

    def _find(self, id_: str | None, provider_index: int | None, name: str) -> _Call | None:
        if not self._calls:
            return None
        if id_:
            same = next((call for call in reversed(self._calls) if call.provider_id == id_), None)
            if same is not None:
                return None if name and same.is_complete and provider_index != same.provider_index else same
        by_index = [
            call for call in self._calls if provider_index is not None and call.provider_index == provider_index
        ]
        if provider_index is not None and not by_index:
            return None
        call = by_index[-1] if by_index else self._calls[-1]
        if id_:
            # An id that is new begins a call, unless the one before is in the middle of its arguments.
            return call if call.arguments and not call.is_complete and name in ("", call.name) else None
        # Without an id, a name after the first one's arguments begins another call, unless it is only repeated.
        another = name and call.name and call.arguments and (name != call.name or call.is_complete)
        return None if another else call


def _piece(index: int, id_: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    return {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
