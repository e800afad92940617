"""Detects a model that repeats itself endlessly, so that its answer can be ended."""

from __future__ import annotations

from typing import Final

# A loop has at least this many characters and repetitions: a Markdown rule or a short refrain has fewer.
LEAST_CHARACTERS: Final = 200
LEAST_TIMES: Final = 5
LONGEST_PIECE: Final = 240
# How often to look for a loop.
STEP_CHARACTERS: Final = 32


class Repetition:
    """Reads an answer in pieces, and keeps only the length of a possible loop."""

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
        # A text has the period `length` if it equals itself shifted by that much.
        return size <= len(self._tail) and self._tail[-size:-length] == self._tail[length - size :]
