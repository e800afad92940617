"""Answers kept in memory, under the keys that plugins name."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

# Some MiB of text at most, gone with the process.
MAX_CACHED_ANSWERS: Final = 512


class AnswerCache:
    """The most recently used whole answers, by key. A key is bound to workspace, app and model."""

    def __init__(self, most: int = MAX_CACHED_ANSWERS) -> None:
        self._most = most
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a kept answer, or None."""
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer, and drop the least recently used one if there are too many."""
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)
