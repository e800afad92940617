"""What an author writes about one input: `Field`, the note of `Annotated`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Field:
    """How a form shows one input, and its bounds. Used as `Annotated[str, Field(title="Text")]`.

    Args:
        title: The label; a text, or texts by locale: {"en": "Text", "zh": "文本"}.
        description: The help below it; a text, or texts by locale.
        ui: The kind of form field; None leaves it to the type. A `file` is sent as base64 in a string.
        min: The least value of a number, or the least length of a text or list.
        max: The greatest value of a number, or the greatest length.
        examples: Values that a form and `llmasos run --help` show, of the type of the input.
    """

    title: str | Mapping[str, str] | None = None
    description: str | Mapping[str, str] | None = None
    ui: Literal["text", "textarea", "file"] | None = None
    min: float | None = None
    max: float | None = None
    examples: Sequence[object] = ()

    def __hash__(self) -> int:  # hints are kept in sets and caches; texts by locale alone have no hash
        return hash((str(self.title), str(self.description), self.ui, self.min, self.max, str(self.examples)))
