"""Corrects a mistyped search, from the words in the catalog's texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

# One wrong letter in four, or two swapped in six; with a lower bound different words would match.
_NEAR = 0.75


def respelled(words: str, texts: Iterable[str]) -> str | None:
    """Replace each unknown word by the most similar known one; None if no word changed, or none is similar.

    Args:
        words: The words of the search.
        texts: The ids, names, summaries and categories in the catalog.
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
