"""The runtime of components that get an app's source with each call, in place of having it built into them.

For its author's runs of a project: a change of the source needs no build. It is the runtime of components otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from typing_extensions import override

from llmasos.kernel.invocation import Invocation
from llmasos.runtimes.component import ComponentRuntime
from llmasos.runtimes.runtime import CallOutcome, Program, SyscallHandler
from llmasos.settings import Settings

_DESCRIBE = "@describe"


class SourceRuntime(ComponentRuntime):
    """Runs installed components, and those that get their source with each call."""

    def __init__(self, settings: Settings, handler: SyscallHandler, source_of: Callable[[Program], str | None]) -> None:
        """A runtime without a runner: the first call starts one.

        Args:
            settings: Where the home is, and how many runners, threads and bytes there may be.
            handler: The kernel's handler of host calls.
            source_of: The source that a program gets with each call, as JSON; None if it was built into it.
        """
        super().__init__(settings, handler)
        self._source_of = source_of

    @override
    async def describe(self, program: Program) -> str:
        source = self._source_of(program)
        if source is None:
            return await super().describe(program)
        return await self._described(program, _DESCRIBE, _handed(source, None))

    @override
    async def call(self, program: Program, invocation: Invocation, action: str, input_json: str) -> CallOutcome:
        source = self._source_of(program)
        text = input_json if source is None else _handed(source, input_json)
        return await super().call(program, invocation, action, text)


def _handed(source: str, input_json: str | None) -> str:
    return f'{{"source":{source},"input":{json.dumps(input_json)}}}'
