"""Removes the secret that was sent to a server from the server's response. Pure.

This guarantees nothing: a malicious server can spell a secret in a way that no filter knows. It replaces
the spellings that honest servers use when they echo a request. An author who must be sure declares `fields` for the
secret: then the app gets the status and those fields alone.
"""

from __future__ import annotations

import base64
import codecs
import html
import json
import math
from collections.abc import Iterable
from typing import Any, Final, cast
from urllib.parse import quote, quote_plus

MARK: Final = "[secret]"
# Spellings shorter than this occur in responses by chance.
SHORTEST: Final = 6


def hidden(text: str, values: Iterable[str]) -> str:
    """Remove the usual spellings of secrets from a text."""
    for value in values:
        for spelling in spellings(value):
            text = text.replace(spelling, MARK)
    return text


def spellings(value: str) -> list[str]:
    """The secret itself and its usual encodings, the longest first."""
    raw = value.encode()
    percent = quote(value, safe="")
    found = {
        value, value[::-1], value.upper(), value.lower(), percent, percent.lower(), quote_plus(value),
        json.dumps(value)[1:-1], html.escape(value), raw.hex(), raw.hex().upper(),
        value.swapcase(), codecs.encode(value, "rot13"), base64.b32encode(raw).decode().rstrip("="),
        *_each_letter(value), *_in_base64(raw),
    }  # fmt: skip
    usual = {spelling for spelling in found if len(spelling) >= SHORTEST} | {value}
    return sorted(usual, key=len, reverse=True)


def _each_letter(value: str) -> Iterable[str]:
    """The escapes of URLs, C, JSON and HTML, though no letter needs one."""
    for escape in ("%{:02x}", "%{:02X}", "\\x{:02x}", "\\u{:04x}", "\\u{:04X}", "&#{};", "&#x{:x};", "&#x{:X};"):
        units = value.encode() if escape.startswith("%") else map(ord, value)
        yield "".join(escape.format(unit) for unit in units)


def _in_base64(raw: bytes) -> Iterable[str]:
    """The parts of base64 that do not depend on the position of the bytes in the encoded data, in both alphabets."""
    for before in range(3):
        # The first and last few characters also hold bits of the neighbouring bytes.
        first = (before * 4 + 2) // 3
        last = len(raw + b"x" * before) * 8 // 6
        text = base64.b64encode(b"\0" * before + raw).decode()[first:last]
        yield text
        yield text.replace("+", "-").replace("/", "_")


def declared(body: str, pointers: Iterable[str]) -> str:
    """The parts of a JSON response that the pointers name, as JSON: {pointer: value}, without those that are absent."""
    try:
        value: Any = json.loads(body.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return "{}"
    found: dict[str, Any] = {}
    for pointer in pointers:
        at, there = _at(value, pointer)
        # Only scalar values, so that the server cannot put arbitrary content into a declared field.
        # NaN and infinities, which Python's decoder accepts, are no JSON; neither is half a character a text.
        infinite = isinstance(at, float) and not math.isfinite(at)
        if there and not infinite and not isinstance(at, dict | list):
            found[pointer] = at
    return json.dumps(found, ensure_ascii=False).encode(errors="replace").decode()


def _at(value: Any, pointer: str) -> tuple[Any, bool]:
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = cast("dict[str, Any]", value)[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(items := cast("list[object]", value)):
            value = items[int(key)]
        else:
            return None, False
    return value, True
