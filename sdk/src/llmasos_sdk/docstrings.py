"""Reads docstrings in Google's style, for the texts of a form."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

# Section heads that end a list of arguments.
SECTIONS = frozenset(
    {"args", "arguments", "attributes", "example", "examples", "note", "raises", "returns", "see also", "yields"}
)
ENTRY = re.compile(r"(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)")


@dataclass(frozen=True, slots=True)
class Docstring:
    """The prose before the first section, and the description of each name in `Args` or `Attributes`."""

    summary: str = ""
    arguments: dict[str, str] = field(default_factory=dict[str, str])


def read(documented: object) -> Docstring:
    """Read the docstring of a function or class; empty if it has none."""
    text = inspect.getdoc(documented) or ""
    prose: list[str] = []
    arguments: dict[str, str] = {}
    section = ""
    entry = ""
    entry_indent = 0
    for line in text.splitlines():
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if indent == 0 and stripped.endswith(":") and stripped[:-1].lower() in SECTIONS:
            section, entry = stripped[:-1].lower(), ""
        elif not section:
            prose.append(stripped)
        elif section not in {"args", "arguments", "attributes"} or not stripped:
            continue
        elif entry and indent > entry_indent:
            arguments[entry] = f"{arguments[entry]} {stripped}".strip()
        elif matched := ENTRY.fullmatch(stripped):
            entry, entry_indent = matched["name"], indent
            arguments[entry] = matched["text"]
    paragraphs = re.split(r"\n{2,}", "\n".join(prose).strip())
    return Docstring("\n\n".join(part.replace("\n", " ") for part in paragraphs if part), arguments)
