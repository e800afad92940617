"""The world of one component: the contract's interfaces that its manifest declares, and no others.

A component that was built against it cannot import more, so that the binary proves the manifest.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from llmasos_sdk.host import BASELINE_CAPABILITIES

PACKAGE: Final = "llmasos:app"
VERSION: Final = "0.1.0"
WORLD: Final = "llmapp"
# What other worlds than the generated one may name, in the order of the contract.
CAPABILITIES: Final = ("output", "log", "config", "model", "storage", "http", "secrets", "apps")


def contract() -> str:
    """The text of the contract, as the SDK ships it."""
    return (importlib.resources.files("llmasos_sdk") / "wit" / "llmasos.wit").read_text(encoding="utf-8")


def imported(capabilities: Iterable[str]) -> list[str]:
    """The interfaces that a world imports: those declared, and the baseline ones, in the contract's order."""
    wanted = BASELINE_CAPABILITIES | set(capabilities)
    return [name for name in CAPABILITIES if name in wanted]


def interface_id(name: str) -> str:
    """An interface's name in a binary: `llmasos:app/model@0.1.0`."""
    return f"{PACKAGE}/{name}@{VERSION}"


def world(capabilities: Iterable[str]) -> str:
    """The contract with the world of a component that declares `capabilities`."""
    imports = "".join(f"  import {name};\n" for name in imported(capabilities))
    return f"{contract()}\nworld {WORLD} {{\n{imports}  export handler;\n}}\n"


def write_world(capabilities: Iterable[str], folder: Path) -> Path:
    """Write the world into a folder in the form that component tools read, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "llmasos.wit").write_text(world(capabilities), encoding="utf-8")
    return folder
