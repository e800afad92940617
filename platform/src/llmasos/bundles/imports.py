"""The binary proves its permissions: what a component imports, held against what its manifest declares. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from llmasos.bundles.manifest import Manifest
from llmasos.errors import ComponentRejected
from llmasos_sdk.host import BASELINE_CAPABILITIES

_CONTRACT: Final = re.compile(r"llmasos:app/([a-z][a-z0-9-]*)@0\.1\.\d+")
# Names alone: the runner links it with nothing behind it but clocks and randomness.
_WASI: Final = re.compile(r"wasi:[a-z-]+/[a-z0-9-]+@0\.2\.\d+")


def check_imports(manifest: Manifest, imports: Iterable[str]) -> None:
    """Refuse a component that imports more than its manifest declares.

    Args:
        manifest: What the app asks for.
        imports: What the binary imports, as a runner read it.

    Raises:
        ComponentRejected: Naming every import too many, and the manifest lines that would declare it.
    """
    allowed = BASELINE_CAPABILITIES | manifest.capabilities | {"types"}
    undeclared: list[str] = []
    foreign: list[str] = []
    for name in imports:
        known = _CONTRACT.fullmatch(name)
        if known is None and not _WASI.fullmatch(name):
            foreign.append(name)
        elif known is not None and known[1] not in allowed:
            undeclared.append(known[1])
    if foreign:
        listed = ", ".join(repr(name[:80]) for name in foreign[:5])
        raise ComponentRejected(f"the component imports {listed}, which no host offers: build it with `llmasos build`")
    if undeclared:
        listed = ", ".join(sorted(set(undeclared)))
        raise ComponentRejected(
            f"the component imports {listed}, which its manifest does not declare: "
            f'add [[permissions]] with capability = "{undeclared[0]}" and a reason to llmapp.toml, or build it again'
        )
