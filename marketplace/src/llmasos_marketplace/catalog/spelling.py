"""What a mistyped search most likely meant, from the words that the catalog's texts contain."""

from __future__ import annotations

import re
from collections.abc import Iterable

# One letter wrong in four, or two swapped in six; nearer words mean other things.
_NEAR = 0.75


def respelled(words: str, texts: Iterable[str]) -> str | None:
    """The search with each unknown word replaced by its nearest known one; None if nothing was, or nothing is near.

    Args:
        words: What was typed.
        texts: Ids, names, summaries and categories of the catalog.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only for a search that found nothing

    known = {word for text in texts for word in re.split(r"[\W_]+", text.lower()) if len(word) > 2}
    meant: list[str] = []
    typed = words.lower().split()
    for word in typed:
        if any(word in other for other in known):
            meant.append(word)
            continue
        near = get_close_matches(word, sorted(known), n=1, cutoff=_NEAR)
        if not near:
            return None
        meant += near
    return " ".join(meant) if meant != typed else None
