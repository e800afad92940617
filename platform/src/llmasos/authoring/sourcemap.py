"""The source position of a line of bundled JavaScript, by its source map (ECMA-426, version 3)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_PLACE = re.compile(r"/bundle\.js:(?P<line>\d+):(?P<column>\d+)")


def guest_map(source_map: Path, file: str, offset: int = 0) -> dict[str, Any]:
    """A map as the SDK reads it inside a component, to name the author's lines in its logs and errors.

    Args:
        source_map: The map of the bundled file.
        file: What stacks call that file.
        offset: How many lines are before it there.
    """
    content: dict[str, Any] = json.loads(source_map.read_text(encoding="utf-8"))
    return {"file": file, "offset": offset, "sources": content["sources"], "mappings": content["mappings"]}


def places(text: str, source_map: Path, folder: str) -> list[str]:
    """The places of the author's code that a traceback names, the innermost first: `app.js, line 3`.

    Args:
        text: The traceback, of the bundled file.
        source_map: The map of the bundled file; without it there are no places.
        folder: That of the author's sources, as the map names it.
    """
    try:
        content: dict[str, Any] = json.loads(source_map.read_text(encoding="utf-8"))
        lines = list(_lines(content["mappings"]))
        sources: list[str] = content["sources"]
    except (OSError, ValueError, KeyError):
        return []
    found: list[str] = []
    for place in _PLACE.finditer(text):
        line, column = int(place["line"]) - 1, int(place["column"]) - 1
        before = [segment for segment in lines[line] if segment[0] <= column] if line < len(lines) else []
        segment = before[-1] if before else next(iter(lines[line] if line < len(lines) else []), None)
        if segment is not None and sources[segment[1]].startswith(f"{folder}/"):
            found.append(f"{sources[segment[1]].removeprefix(f'{folder}/')}, line {segment[2] + 1}")
    return found


def _lines(mappings: str) -> Iterator[list[tuple[int, int, int]]]:
    """For each line of the output its segments: column, number of the source, line of the source."""
    source = source_line = 0
    for line in mappings.split(";"):
        column, segments = 0, list[tuple[int, int, int]]()
        for text in filter(None, line.split(",")):
            fields = list(_numbers(text))
            column += fields[0]
            if len(fields) >= 4:
                source, source_line = source + fields[1], source_line + fields[2]
                segments.append((column, source, source_line))
        yield segments


def _numbers(text: str) -> Iterator[int]:
    """Base64 VLQ: five bits a digit, the lowest first; the sign is the first bit."""
    value = shift = 0
    for character in text:
        digit = _DIGITS.index(character)
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            yield -(value >> 1) if value & 1 else value >> 1
            value = shift = 0
