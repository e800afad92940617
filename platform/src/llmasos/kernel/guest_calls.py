"""Host calls as apps make them: a capability and a function by name, and texts as arguments.

The runtimes hand each call to a `GuestCalls`. It decodes the call into a typed operation, gives it to the kernel and
encodes the answer. A stream becomes a number, by which the app reads and closes it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from llmasos.errors import Invalid
from llmasos.i18n import _
from llmasos.json_text import replace_half_characters
from llmasos.kernel.calls import OpenStream
from llmasos.kernel.capability import Capability, ContractFunction
from llmasos.kernel.invocation import Invocation, Json
from llmasos.kernel.limits import check_arguments, check_json_depth
from llmasos.kernel.syscall import Kernel


def json_text(value: object) -> str:
    """Encode a value as JSON text for an app."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        # A lone surrogate: a provider split a character. As an escape, the app can join it to its other half.
        return json.dumps(msgspec.to_builtins(value))


def json_argument(arguments: list[Json]) -> str:
    """Return the only argument, JSON text that is not parsed yet.

    Raises:
        Invalid: There is not exactly one text argument, or it nests too deep.
    """
    match arguments:
        case [str(text)]:
            check_json_depth(text)
            return replace_half_characters(text)
        case _:
            raise Invalid(_("This function takes one argument, a JSON text."))


def parse_json(text: str) -> Json:
    """Parse an argument that is JSON text.

    Raises:
        Invalid: It is not JSON, or nests too deep.
    """
    check_json_depth(text)
    try:
        return msgspec.json.decode(replace_half_characters(text))
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise Invalid(_("An argument that must be JSON text is not JSON.")) from None


@dataclass(frozen=True, slots=True)
class GuestCalls:
    """Serves the host calls of apps: the runtimes' handler of system calls."""

    kernel: Kernel

    async def __call__(self, invocation: Invocation, capability: str, function: str, arguments: list[Json]) -> Json:
        """Serve one call.

        Args:
            invocation: Who calls: known by the connection, never by what a message says.
            capability: A capability by its WIT name.
            function: One of its functions, or `read` or `close` of a stream.
            arguments: The WIT parameters, in order.

        Returns:
            The answer as a WIT value.

        Raises:
            LlmasosError: Denied, over quota, not valid, and so on. No other error leaves the host.
        """
        # The app chose these names, so they are bounded before they go into the log.
        with self.kernel.error_boundary(invocation, f"{capability[:60]}.{function[:60]}"):
            check_arguments(arguments)
            await self.kernel.pace(invocation)
            call = self._decoded(invocation, self.kernel.authorise(invocation, capability), function, arguments)
        return await call

    def _decoded(
        self, invocation: Invocation, capability: Capability, function: str, arguments: list[Json]
    ) -> Awaitable[Json]:
        if function in {"read", "close"} and function not in capability.contract:
            return self._stream_call(invocation, capability, function, arguments)
        found = capability.contract.get(function)
        if found is None:
            known = ", ".join(sorted(capability.contract))
            raise Invalid(
                _(
                    "{capability} has no function {function!r}; it has {known}.",
                    capability=capability.name,
                    function=function[:80],
                    known=known,
                ),
            )
        return self._operate(invocation, found, found.decode(arguments))

    async def _operate(self, invocation: Invocation, function: ContractFunction, operation: Any) -> Json:
        answer: Any = await self.kernel.call(invocation, operation)
        return answer.number if isinstance(answer, OpenStream) else function.encode(answer)

    def _stream_call(
        self, invocation: Invocation, capability: Capability, function: str, arguments: list[Json]
    ) -> Awaitable[Json]:
        match arguments:
            case [int() as number] if not isinstance(number, bool):
                pass
            case _:
                raise Invalid(_("A stream is read and closed by its number alone."))
        opened = self.kernel.stream(invocation, capability.name, number)
        if opened is None:
            return _nothing()
        if function == "close":
            return opened.close()
        return _read(opened, capability.contract[opened.function].encode)


async def _read(opened: OpenStream[Any], encode: Callable[[Any], Json]) -> Json:
    part = await opened.read()
    return None if part is None else encode(part)


async def _nothing() -> None:
    """The value that a stream returns once it has ended."""
