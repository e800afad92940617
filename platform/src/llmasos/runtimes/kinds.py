"""The host's own kinds of runtime, registered in the same way as an operator's plugin registers one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from llmasos.errors import ManifestRejected
from llmasos.i18n import _
from llmasos.runtimes.runtime import Runtime, RuntimeContext, RuntimeKind

# Imported at the point of use, since few commands run anything and a runtime imports its protocol's decoders.


def _components(context: RuntimeContext) -> Runtime:
    from llmasos.runtimes.component import ComponentRuntime  # noqa: PLC0415

    return ComponentRuntime.from_context(context)


def _native(context: RuntimeContext) -> Runtime:
    from llmasos.runtimes.native import NativeRuntime  # noqa: PLC0415

    return NativeRuntime.from_context(context)


COMPONENTS: Final = RuntimeKind("wasm", _components)
NATIVE: Final = RuntimeKind("python", _native)


def unknown_kind(kind: str) -> ManifestRejected:
    """The error for a kind that no runtime here runs."""
    return ManifestRejected(
        _(
            'No runtime here runs kind = "{kind}": install the operator plugin that registers it '
            '(`llmasos plugins list` shows what is loaded), or build the app as kind = "wasm" or '
            '"python".',
            kind=kind,
        ),
    )


class Runtimes:
    """The runtimes of a host or a build, each created at its first use.

    Args:
        find: Returns the runtime of a kind; None if no plugin registered one.
        context: The context that they are created with.
    """

    def __init__(self, find: Callable[[str], RuntimeKind | None], context: RuntimeContext) -> None:
        self._find = find
        self._context = context
        self._made: dict[str, Runtime] = {}

    def of(self, kind: str) -> Runtime:
        """Return the runtime of a kind.

        Raises:
            ManifestRejected: No runtime here runs it.
        """
        if kind not in self._made:
            found = self._find(kind)
            if found is None:
                raise unknown_kind(kind)
            self._made[kind] = found.make(self._context)
        return self._made[kind]

    async def close(self) -> None:
        """End every runner."""
        made, self._made = self._made, {}
        await asyncio.gather(*(runtime.close() for runtime in made.values()))
