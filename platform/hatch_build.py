"""Compiles the message catalogs whenever the package is built, also when it is installed from a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileCatalogs(BuildHookInterface):  # type: ignore[type-arg]
    """Writes a `.mo` file beside each `.po` file; a fuzzy entry is left out."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files of the wheel are collected."""
        for source in Path(self.root).glob("src/llmasos/i18n/locales/*/LC_MESSAGES/*.po"):
            with source.open("rb") as text:
                catalog = read_po(text, locale=source.parent.parent.name)
            with source.with_suffix(".mo").open("wb") as compiled:
                write_mo(compiled, catalog)
