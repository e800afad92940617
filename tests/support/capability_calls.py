"""Calls of one capability as an app makes them, without a kernel around it."""

from typing import Any

from llmasos.kernel.capability import Capability, PreparedCall
from llmasos.kernel.invocation import Invocation


def prepared(capability: Capability, invocation: Invocation, function: str, arguments: list[Any]) -> PreparedCall[Any]:
    """Decode a call and check it against the grant."""
    return capability.prepare(invocation, capability.contract[function].decode(arguments))


async def answered(capability: Capability, invocation: Invocation, function: str, arguments: list[Any]) -> Any:
    """The result that an app receives for a call, or its stream."""
    call = prepared(capability, invocation, function, arguments)
    outcome = await call.execute(call.demand)
    return outcome.stream or capability.contract[function].encode(outcome.answer)
