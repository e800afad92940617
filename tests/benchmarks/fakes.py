"""What the benchmarks of a server share: an authenticator that knows everybody, and an app that goes on."""

from __future__ import annotations

import asyncio

from llmasos.kernel.invocation import Event, Principal
from llmasos.testing import Guest
from llmasos_server.rest.identity import Caller, TokenScope


class Anybody:
    """An authenticator that knows every token."""

    def authenticate(self, token: str) -> Caller | None:
        return Caller(Principal(), frozenset({TokenScope.ADMIN}))

    def is_good(self, token_id: str) -> bool:
        return True


async def tick(guest: Guest) -> object:
    """Show a chunk each second, without end."""
    while True:
        await guest.invocation.emit(Event("chunk", "tick"))
        await asyncio.sleep(1)
