"""Extracts the JSON of a streamed answer while it arrives, without the fence or the words around it."""

from __future__ import annotations


class JsonOnly:
    """Passes on only the first object (or array); a text without one is passed on completely at its end."""

    def __init__(self, *, wants_object: bool) -> None:
        self._starts = "{" if wants_object else "{["
        self._before: list[str] = []
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._state = "before"

    def feed(self, text: str) -> str:
        """Add a part; return the JSON in it."""
        shown: list[str] = []
        for character in text:
            if self._state == "before":
                if character not in self._starts:
                    self._before.append(character)
                    continue
                self._state = "inside"
            if self._state == "inside":
                shown.append(character)
                self._track(character)
        return "".join(shown)

    def finish(self) -> str:
        """Return the withheld text: all of an answer that contains no JSON."""
        return "".join(self._before) if self._state == "before" else ""

    def _track(self, character: str) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            if self._depth == 0:
                self._state = "after"
