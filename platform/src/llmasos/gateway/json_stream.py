"""Extracts the JSON of a streamed answer while it arrives, without the fence or the words around it."""

from __future__ import annotations

from typing import Final

_BLANKS: Final = " \t\r\n"
# What follows the brace of an object; other braces are words, as in "{name} is a placeholder".
_AFTER_A_BRACE: Final = '"}'


class JsonOnly:
    """Passes on only the first object (or array); a text without one is passed on completely at its end."""

    def __init__(self, *, wants_object: bool) -> None:
        self._starts = "{" if wants_object else "{["
        self._before: list[str] = []
        self._opening = ""
        """A brace, and the blanks after it, of which it is not known yet whether an object begins there."""
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._state = "before"

    def feed(self, text: str) -> str:
        """Add a part; return the JSON in it."""
        shown: list[str] = []
        for character in text:
            if self._state == "before" and not self._begins(character, shown):
                continue
            if self._state == "inside":
                shown.append(character)
                self._track(character)
        return "".join(shown)

    def finish(self) -> str:
        """Return the withheld text: all of an answer that contains no JSON."""
        return "".join((*self._before, self._opening)) if self._state == "before" else ""

    def _begins(self, character: str, shown: list[str]) -> bool:
        """Whether the JSON began, with this character or before it."""
        if self._opening:
            if character in _BLANKS:
                self._opening += character
                return False
            if character in _AFTER_A_BRACE:
                shown.append(self._opening)
                self._state, self._depth, self._opening = "inside", 1, ""
                return True
            self._before.append(self._opening)
            self._opening = ""
        if character == "{":
            self._opening = character
        elif character in self._starts:
            self._state = "inside"
            return True
        else:
            self._before.append(character)
        return False

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
