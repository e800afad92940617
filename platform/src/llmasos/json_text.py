"""Repairs JSON text from programs before it is parsed."""

from __future__ import annotations

import re
from typing import Final

# One escape at a time, so that the second half of a pair or an escaped backslash is not taken for a new escape.
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def replace_half_characters(text: str) -> str:
    r"""Replace each escape of a lone surrogate by that of U+FFFD.

    A program that cuts a text between the halves of an emoji writes `\ud83d`, which is valid JSON but no text
    in UTF-8, so that strict parsers refuse all of it.
    """
    if "\\u" not in text:
        return text
    return _ESCAPE.sub(lambda found: "\\ufffd" if found[1] else found[0], text)
