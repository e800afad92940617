"""Finds invisible characters in an app's texts: they could repaint the consent screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from llmasos.printable import hidden_character

# Everything else is shown on one line, and a second line could pass for one of ours.
_WITH_LINES = frozenset({"description", "default", "enum", "const", "examples", "example", "input", "$comment"})


def hidden_characters(value: object, path: str = "", *, lines: bool = False) -> Iterator[tuple[str, str]]:
    """Find each text with an invisible character in a decoded document: its path, and the character's code.

    Args:
        value: Tables, lists and texts, nested no deeper than their reader allows.
        path: The path of `value`, as an author would write it.
        lines: Whether these texts may have line feeds and tabs.
    """
    if isinstance(value, str):
        found = hidden_character(value, lines=lines)
        if found:
            yield path, found
    elif isinstance(value, dict):
        for key, each in cast("dict[str, object]", value).items():
            found = hidden_character(key)
            if found:
                yield path or "a key", found
            else:
                yield from hidden_characters(each, f"{path}.{key}" if path else key, lines=lines or key in _WITH_LINES)
    elif isinstance(value, list):
        for index, each in enumerate(cast("list[object]", value)):
            yield from hidden_characters(each, f"{path}[{index}]", lines=lines)
