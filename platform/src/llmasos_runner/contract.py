"""The contract with components, read from the SDK's own `llmasos.wit`, so that there is one source of it.

This reader understands only what that file uses: interfaces, functions, and the `error` variant. Types are kept as
`convert` names them, so that a component's imports compare as text.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

import llmasos_sdk

PACKAGE: Final = "llmasos:app"
HANDLER: Final = "handler"
TYPES: Final = "types"
# A component fits the contract if it names this version; a later contract has its own.
VERSION: Final = "0.1.0"

_COMMENT: Final = re.compile(r"//[^\n]*")
_INTERFACE: Final = re.compile(r"interface\s+([a-z0-9-]+)\s*\{(.*?)\n\}", re.DOTALL)
_VARIANT: Final = re.compile(r"variant\s+([a-z0-9-]+)\s*\{(.*?)\}", re.DOTALL)
_FUNCTION: Final = re.compile(r"([a-z0-9-]+):\s*func\((.*?)\)\s*(?:->\s*(.*?))?;", re.DOTALL)
_PARAMETER: Final = re.compile(r"[a-z0-9-]+:\s*")


def interface_name(capability: str) -> str:
    """Return the name under which a component imports a capability."""
    return f"{PACKAGE}/{capability}@{VERSION}"


def capability_of(import_name: str) -> str | None:
    """Return the interface of the contract that an import names, or None."""
    prefix, suffix = f"{PACKAGE}/", f"@{VERSION}"
    if import_name.startswith(prefix) and import_name.endswith(suffix):
        return import_name[len(prefix) : -len(suffix)]
    return None


def short(types: str) -> str:
    """Return a signature as the contract writes it, with the name `error` for its cases."""
    return re.sub(r"variant \{ denied\(string\)[^}]*\}", "error", types)


@cache
def interfaces() -> dict[str, dict[str, str]]:
    """Return the signatures of each interface's functions, as `signature.Signature` writes them."""
    file = Path(llmasos_sdk.__file__).parent / "wit" / "llmasos.wit"
    text = _COMMENT.sub("", file.read_text(encoding="utf-8"))
    found = dict(_INTERFACE.findall(text))
    named = {
        name: f"variant {{ {', '.join(case.strip() for case in cases.split(',') if case.strip())} }}"
        for name, cases in _VARIANT.findall(found[TYPES])
    }
    return {name: _functions(body, named) for name, body in found.items() if name != TYPES}


def _functions(body: str, named: dict[str, str]) -> dict[str, str]:
    signatures: dict[str, str] = {}
    for name, parameters, result in _FUNCTION.findall(body):
        types = _PARAMETER.sub("", " ".join(parameters.split()))
        answer = " ".join(result.split())
        for short, full in named.items():
            answer = re.sub(rf"\b{short}\b", full, answer)
        signatures[name] = f"func({types})" + (f" -> {answer}" if answer else "")
    return signatures
