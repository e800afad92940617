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
_HIDDEN: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
# Fillers, selectors and blanks: nothing is drawn for them, though by their categories they are letters or signs. The
# first sixteen variation selectors are not among them: emoji need those.
_DRAWN_AS_NOTHING: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufdd0-\ufdef\uffa0\ufffc\ufffe\uffff\U000e0100-\U000e01ef]"
)
# No script stacks more than four marks on a letter; a hundred of them cover the lines above and below.
_MARK: Final = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f]"
_PILE: Final = re.compile(f"({_MARK}{{4}}){_MARK}+")
# So many blanks in a row only move what follows to a place where it reads as something else.
_GAP: Final = re.compile(r"[^\S\n]{3,}")


def printable(text: str) -> str:
    r"""Make a foreign text safe to print, keeping lines and tabs; unsafe characters show as `\x1b` or `\u202e`."""
    return _UNSAFE.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """As `printable`, on one line and without gaps or piles of marks, so that it cannot pretend to be ours."""
    line = printable(text).replace("\n", " ").replace("\t", " ")
    return _GAP.sub(" ", line) if line.isascii() else _PILE.sub(r"\1", _GAP.sub(" ", line))


def json_safe(document: str) -> str:
    r"""Escape unsafe characters in a JSON document as `\u009b`: the same values, safe to print."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def hidden_character(text: str, *, lines: bool = False) -> str | None:
    """The code, such as `U+202E`, of the first character that is invisible, moves or covers others; None without one.

    Args:
        text: An author's text.
        lines: Whether line feeds and tabs are allowed.
    """
    for letter in text:
        if unicodedata.category(letter) not in _HIDDEN or letter in _JOINERS or (lines and letter in "\n\t"):
            continue
        return f"U+{ord(letter):04X}"
    odd = _DRAWN_AS_NOTHING.search(text) or _PILE.search(text)
    return None if odd is None else f"U+{ord(odd[0][-1]):04X}"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
