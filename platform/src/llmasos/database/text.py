"""Text as both databases store it.

PostgreSQL stores no NUL, and neither stores half a surrogate pair: the statement fails, and with it the writes that
share its transaction. Text of guests and providers passes through here before it reaches a row. What must come back
as it was (a key, a value) is refused instead, by `is_storable`.
"""

from __future__ import annotations

import re
from typing import Final

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_LEFT_OUT: Final = "…"


def is_storable(text: str) -> bool:
    """Whether a text comes back as it was, from either database."""
    return _UNSTORABLE.search(text) is None


def storable(text: str, max_characters: int | None = None) -> str:
    """The text with U+FFFD for what no database stores, cut to a length if that is given."""
    if max_characters is not None and len(text) > max_characters:
        text = text[: max_characters - len(_LEFT_OUT)] + _LEFT_OUT
    return text if text.isascii() and "\0" not in text else _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)
