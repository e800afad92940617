"""Reads the actions of a built binary in a runner: app code runs nowhere else, not even its author's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from llmasos.authoring.build import Describe
from llmasos.bundles.reader import code_digest
from llmasos.runtimes.runtime import Program, Runtime


def describing(runtimes: Mapping[Literal["wasm", "python"], Runtime]) -> Describe:
    """What `build` calls: it prepares the binary, and asks it for its actions.

    Args:
        runtimes: One for each kind of app.
    """

    async def describe(path: Path, capabilities: frozenset[str]) -> str:
        kind: Literal["wasm", "python"] = "wasm" if path.suffix == ".wasm" else "python"
        if kind == "wasm":
            code, digest = path, hashlib.sha256(path.read_bytes()).hexdigest()
        else:  # an environment is made of a folder: the wheel and its lock
            code = path.parent
            digest = code_digest({each.name: each.read_bytes() for each in sorted(code.iterdir())})
        program = Program(kind=kind, digest=digest, capabilities=capabilities, installation_id="build")
        runtime = runtimes[kind]
        await runtime.prepare(program, code)
        return await runtime.describe(program)

    return describe
