"""Avoids Typer's import of pydantic if a value needs no conversion.

Typer builds a pydantic adapter for every parameter, also for a text and for a flag that was not given. That import
takes 0.1 s, half of the time that `llmasos list` may take. Here a value that already is what the annotation says
is taken as it is, and every other goes Typer's own way. If Typer moves what is replaced here, commands are slower
again and a test says so; nothing else changes.
"""

from __future__ import annotations

from typing import Any

import typer
import typer.core


class _Coercion:
    """One parameter's conversion, begun when it is needed."""

    def __init__(self, descriptor: Any, build: Any) -> None:
        self._descriptor = descriptor
        self._build = build

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as the annotation wants it."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        annotation = self._descriptor.annotation
        plain = not self._descriptor.is_choice and not self._descriptor.is_ranged
        if plain and annotation in (str, bool, int) and type(value) is annotation:
            return value
        if annotation == list[str] and type(value) in (list, tuple) and all(type(item) is str for item in value):
            return value
        if self._descriptor.is_ranged and value == param.default:
            return value
        try:
            return self._build(self._descriptor).coerce(value, param=param, ctx=ctx)
        except typer.BadParameter as error:
            if isinstance(value, str) and value not in error.message:
                error.message = f"{value!r}: {error.message}"
            raise


def spare_pydantic() -> None:
    """Take plain values as they are, in every command of this process."""
    build: Any = getattr(typer.core, "build_runtime_param", None)
    if build is not None and not getattr(build, "is_sparing", False):

        def sparing(descriptor: Any) -> Any:
            return _Coercion(descriptor, build)

        sparing.is_sparing = True  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
        typer.core.build_runtime_param = sparing  # type: ignore[attr-defined]  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
