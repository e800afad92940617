"""Answers kept in memory, under the keys that plugins name."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

# Some MiB of text at most, gone with the process.
MAX_CACHED_ANSWERS: Final = 512


class AnswerCache:
    """Whole answers by key, the latest used ones; a key is bound to workspace, app and model."""

    def __init__(self, most: int = MAX_CACHED_ANSWERS) -> None:
        self._most = most
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def get(self, key: str) -> dict[str, Any] | None:
        """An answer that was put, or None."""
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer; the one that was not used for longest makes room."""
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)
