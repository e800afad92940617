"""Text as both databases store it.

PostgreSQL stores no NUL, and neither stores half a surrogate pair: the statement fails, and with it the writes that
share its transaction. Text from guests and providers passes through here before it reaches a row. What must come back
unchanged (a key, a value) is refused instead, by `is_storable`.
"""

from __future__ import annotations

import re
from typing import Final

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_LEFT_OUT: Final = "…"


def is_storable(text: str) -> bool:
    """Whether a text comes back unchanged from both databases."""
    return _UNSTORABLE.search(text) is None


def storable(text: str, max_characters: int | None = None) -> str:
    """Replace what no database stores by U+FFFD, and cut the text to a length if one is given."""
    if max_characters is not None and len(text) > max_characters:
        text = text[: max_characters - len(_LEFT_OUT)] + _LEFT_OUT
    return text if text.isascii() and "\0" not in text else _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)
