"""Prepares what the package holds besides its modules: compiled message catalogs, and the migrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PackageData(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before the files of a wheel or a source distribution are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the catalogs, and include the migrations."""
        self._compile_catalogs()
        if version != "editable":  # which reads the migrations in the checkout
            self._include_migrations(build_data["force_include"])

    def _compile_catalogs(self) -> None:
        """Write a `.mo` file beside each `.po` file; a fuzzy entry is left out."""
        for source in Path(self.root).glob("src/llmasos/i18n/locales/*/LC_MESSAGES/*.po"):
            with source.open("rb") as text:
                catalog = read_po(text, locale=source.parent.parent.name)
            with source.with_suffix(".mo").open("wb") as compiled:
                write_mo(compiled, catalog)

    def _include_migrations(self, included: dict[str, str]) -> None:
        """Include `migrations/`, which stands beside the packages in a checkout, as `llmasos/_migrations`.

        A source distribution holds them inside the package, so that a wheel built from it needs nothing more.
        """
        migrations = Path(self.root).parent / "migrations"
        package = "src/llmasos" if self.target_name == "sdist" else "llmasos"
        for path in sorted(migrations.rglob("*")):
            if path.suffix in {".py", ".mako"}:
                included[str(path)] = f"{package}/_migrations/{path.relative_to(migrations).as_posix()}"
