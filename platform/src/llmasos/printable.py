"""Neutralises foreign text (of apps, models, providers, publishers) for terminals and logs.

A terminal obeys escape sequences, and a reader believes what a line appears to say. So control characters (C0 and C1,
with which every CSI and OSC sequence begins) and bidirectional controls are shown as escapes instead of being sent.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# C0 except tab and line feed, DEL and C1; marks, embeddings, overrides and isolates of the bidirectional algorithm; the
# line and paragraph separators, which some programs treat as the end of a line; and lone surrogates.
_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Emoji and several scripts need the two joiners; no other invisible character belongs in a name or a reason.
_JOINERS: Final = frozenset("\u200c\u200d")
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Make a foreign text safe to print, keeping lines and tabs; unsafe characters show as `\x1b` or `\u202e`."""
    return _UNSAFE.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """As `printable`, on one line, so that it cannot pretend to be lines of ours."""
    return printable(text).replace("\n", " ").replace("\t", " ")


def json_safe(document: str) -> str:
    r"""Escape unsafe characters in a JSON document as `\u009b`: the same values, safe to print."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def hidden_character(text: str, *, lines: bool = False) -> str | None:
    """The code, such as `U+202E`, of the first character that is invisible or reorders others; None without one.

    Args:
        text: An author's text.
        lines: Whether line feeds and tabs are allowed.
    """
    for letter in text:
        if unicodedata.category(letter) not in _HIDDEN or letter in _JOINERS or (lines and letter in "\n\t"):
            continue
        return f"U+{ord(letter):04X}"
    return None


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
