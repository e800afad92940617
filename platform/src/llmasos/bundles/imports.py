"""The binary proves its permissions: a component may import only what its manifest declares. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from llmasos.errors import ComponentRejected
from llmasos.i18n import _
from llmasos_sdk.host import BASELINE_CAPABILITIES

_CONTRACT: Final = re.compile(r"llmasos:app/([a-z][a-z0-9-]*)@0\.1\.\d+")
# Names only: the runner links nothing of it but clocks and randomness.
_WASI: Final = re.compile(r"wasi:[a-z-]+/[a-z0-9-]+@0\.2\.\d+")


def undeclared(imports: Iterable[str], capabilities: frozenset[str]) -> list[str]:
    """The capabilities among WIT imports such as `llmasos:app/model@0.1.0` that `capabilities` lacks, sorted."""
    known = (_CONTRACT.fullmatch(name) for name in imports)
    return sorted({name[1] for name in known if name} - capabilities - BASELINE_CAPABILITIES - {"types"})


def check_imports(imports: Iterable[str], capabilities: frozenset[str]) -> None:
    """Refuse a component that imports more than its manifest declares.

    Args:
        imports: The binary's imports, as read by a runner.
        capabilities: What its manifest asks for; the baseline capabilities need no permission.

    Raises:
        ComponentRejected: The message names every undeclared import, and the manifest lines that would declare it.
    """
    found = tuple(imports)
    foreign = [name for name in found if not _CONTRACT.fullmatch(name) and not _WASI.fullmatch(name)]
    if foreign:
        listed = ", ".join(repr(name[:80]) for name in foreign[:5])
        raise ComponentRejected(
            _("the component imports {listed}, which no host offers: build it with `llmasos build`", listed=listed),
        )
    missing = undeclared(found, capabilities)
    if missing:
        names = ", ".join(missing)
        lines = "; ".join(f'[[permissions]] capability = "{name}"' for name in missing)
        raise ComponentRejected(
            _(
                "the component imports {names}, which its manifest does not declare: add {lines}, each with "
                "a reason, to llmapp.toml, or build it again",
                names=names,
                lines=lines,
            ),
        )
