"""Notices a small model that says the same again and again, so that its answer is ended instead of filled up."""

from __future__ import annotations

from typing import Final

# A loop is at least this long, and says its piece at least so often: a rule in Markdown or a short refrain is shorter.
LEAST_CHARACTERS: Final = 200
LEAST_TIMES: Final = 5
LONGEST_PIECE: Final = 240
# How often it is looked for; a loop needs no haste.
STEP_CHARACTERS: Final = 32


class Repetition:
    """Takes an answer as it comes; keeps no more of it than a loop needs."""

    def __init__(self) -> None:
        self._tail = ""
        self._unchecked = 0

    def feed(self, text: str) -> bool:
        """Whether the answer now ends in a loop."""
        self._tail = (self._tail + text)[-LEAST_TIMES * LONGEST_PIECE :]
        self._unchecked += len(text)
        if self._unchecked < STEP_CHARACTERS:
            return False
        self._unchecked = 0
        return any(self._loops(length) for length in range(1, LONGEST_PIECE + 1))

    def _loops(self, length: int) -> bool:
        """Whether the tail repeats a piece of this length."""
        size = max(LEAST_TIMES * length, LEAST_CHARACTERS)
        # A text has the period `length` if it equals itself moved by so much.
        return size <= len(self._tail) and self._tail[-size:-length] == self._tail[length - size :]
