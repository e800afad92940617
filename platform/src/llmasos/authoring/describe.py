"""Describes a built binary in a runner: app code runs nowhere else, not even its author's."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from llmasos.bundles.reader import code_digest
from llmasos.errors import Denied
from llmasos.i18n import _
from llmasos.kernel.invocation import Invocation, Json
from llmasos.runtimes.kinds import COMPONENTS, NATIVE, Runtimes
from llmasos.runtimes.runtime import Program, RuntimeContext, RuntimeKind, SyscallHandler
from llmasos.settings import Settings


async def closed(_invocation: Invocation, capability: str, _function: str, _arguments: list[Json]) -> Json:
    """Refuse the host calls of a build: nothing is granted to an app that only describes itself."""
    raise Denied(
        _("{capability} is not there while an app describes itself; call it from an action", capability=capability),
    )


class Runners(Runtimes):
    """Runtimes without a host: the host's own, and for other kinds those of operators' plugins.

    Args:
        settings: Where the home is, and how large a runner may be.
        handler: Handles the apps' host calls.
        components: The runtime of components.
    """

    def __init__(
        self, settings: Settings, handler: SyscallHandler = closed, components: RuntimeKind = COMPONENTS
    ) -> None:
        def find(kind: str) -> RuntimeKind | None:
            for own in (components, NATIVE):
                if own.kind == kind:
                    return own
            # Only here, since loading plugins imports what they stand on.
            from llmasos.plugins import Plugins  # noqa: PLC0415

            return Plugins.load(only_built_in=settings.plugins == "off").runtimes().get(kind)

        super().__init__(find, RuntimeContext(settings, handler))

    async def describe(self, path: Path, capabilities: frozenset[str], kind: str) -> str:
        """The actions of a component, or of a wheel with its lock beside it; what `build` calls."""
        return await describe(self, path, capabilities, kind)


async def describe(runtimes: Runtimes, path: Path, capabilities: frozenset[str], kind: str) -> str:
    """The actions of a component, or of a wheel with its lock beside it."""
    if path.suffix == ".wasm":
        code, digest = path, hashlib.sha256(path.read_bytes()).hexdigest()
    else:  # an environment is made of a folder: the wheel and its lock
        code = path.parent
        digest = code_digest({each.name: each.read_bytes() for each in sorted(code.iterdir())})
    program = Program(kind=kind, digest=digest, capabilities=capabilities, installation_id="build")
    runtime = runtimes.of(kind)
    await runtime.prepare(program, code)
    return await runtime.describe(program)


@asynccontextmanager
async def in_runners(settings: Settings) -> AsyncGenerator[Runners]:
    """Runners for a build or an inspection, until the block ends.

    Args:
        settings: Where the home is, and how large a runner may be.
    """
    runners = Runners(settings)
    try:
        yield runners
    finally:
        await runners.close()
