"""Extracts the JSON of a streamed answer while it arrives, without the fence or the words around it."""

from __future__ import annotations

import re
from typing import Final

from llmasos.gateway.answers import json_in
from llmasos.gateway.plan import CallPlan

# An object begins with its first key, or is empty; other braces are words, as in "{name} is a placeholder".
_BEGUN: Final = re.compile(r'\{\s*(\}|"([^"\\]|\\.)*"\s*:)')
_MAY_BEGIN: Final = re.compile(r'\{\s*("([^"\\]|\\.)*(\\|"\s*)?)?')
LONGEST_KEY: Final = 300


def json_of(plan: CallPlan) -> JsonOnly | JsonAtItsEnd | None:
    """What extracts the JSON of a streamed answer, or None if text was requested."""
    if not plan.wants_json:
        return None
    return JsonOnly() if plan.wants_object else JsonAtItsEnd()


class JsonAtItsEnd:
    """Passes on JSON of any kind once the text is complete: only then is it known which of its words are JSON."""

    def __init__(self) -> None:
        self._text: list[str] = []

    def feed(self, text: str) -> str:
        """Add a part; nothing is passed on yet."""
        self._text.append(text)
        return ""

    def finish(self) -> str:
        """Return the JSON, or all of the text if it contains none."""
        text = "".join(self._text)
        found = json_in(text, wants_object=False)
        return text if found is None else found


class JsonOnly:
    """Passes on only the first object; a text without one is passed on completely at its end."""

    def __init__(self) -> None:
        self._before: list[str] = []
        self._opening = ""
        """A brace, and what follows it, of which it is not known yet whether an object begins there."""
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
            opening = self._opening + character
            if _BEGUN.fullmatch(opening):
                shown.append(self._opening)
                self._state, self._depth, self._opening = "inside", 1, ""
                return True
            if len(opening) < LONGEST_KEY and _MAY_BEGIN.fullmatch(opening):
                self._opening = opening
                return False
            self._before.append(self._opening)
            self._opening = ""
        if character == "{":
            self._opening = character
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
