"""Streams of a capability: their reservations, and how they are settled."""

from typing import Any

import pytest
from sqlmodel import select
from tests.platform.kernel.token_capability import APP, ME, Count, TokenCapability, audit_lines, limit, window

from llmasos.database.engine import Database
from llmasos.errors import NotFound, Unavailable
from llmasos.invocations.tables import InvocationRow
from llmasos.quotas.ledger import Reservation
from llmasos.quotas.tables import ReservationRow
from llmasos.testing import SmallHost


async def test_a_stream_holds_its_reservation_until_it_ends(
    host: SmallHost, database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    async with host.invocations.open(ME, APP, "act") as invocation:
        number = await host.guest(invocation, "model", "open", [20])
        assert [await host.guest(invocation, "model", "read", [number]) for _ in range(5)] == [
            "a",
            "b",
            "c",
            None,
            None,
        ]
        await host.guest(invocation, "model", "close", [number])
        with pytest.raises(NotFound):
            await host.guest(invocation, "model", "read", [number + 1])
    assert capability.streams[0].closed
    assert window(database) == (4, 0, 0)


async def test_a_stream_that_is_left_open_is_closed_and_settled(
    host: SmallHost, database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    async with host.invocations.open(ME, APP, "act") as invocation:
        number = await host.guest(invocation, "model", "open", [20])
        await host.guest(invocation, "model", "read", [number])
    assert capability.streams[0].closed
    assert window(database) == (2, 0, 0)
    assert audit_lines(database) == [("model.open", "ok"), ("invocation", "ok")]


async def test_a_stream_whose_settlement_fails_keeps_no_other_from_being_settled(
    host: SmallHost, database: Database, capability: TokenCapability, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11: streams were ended in turn, so the first failure left the later ones reserved until the lease ended."""
    limit(database, 100)
    settle_with, failed = host.kernel._ledger.settle_with, []

    def fail_once(reservation: Reservation, work: Any) -> Any:
        if not failed:
            failed.append(reservation.id)
            raise Unavailable
        return settle_with(reservation, work)

    with pytest.raises(Unavailable):
        async with host.invocations.open(ME, APP, "act") as invocation:
            for _ in range(3):
                await host.guest(invocation, "model", "open", [20])
            monkeypatch.setattr(host.kernel._ledger, "settle_with", fail_once)
    assert [stream.closed for stream in capability.streams] == [True] * 3
    with database.read() as session:
        assert {row.id for row in session.exec(select(ReservationRow))} == set(failed)
        assert session.get_one(InvocationRow, invocation.id).status == "succeeded"


async def test_a_stream_that_fails_is_settled(host: SmallHost, database: Database, capability: TokenCapability) -> None:
    limit(database, 100)
    capability.fail_after = 2
    async with host.invocations.open(ME, APP, "act") as invocation:
        number = await host.guest(invocation, "model", "open", [20])
        with pytest.raises(Unavailable):
            for _ in range(3):
                await host.guest(invocation, "model", "read", [number])
    assert window(database) == (3, 0, 0)


async def test_a_program_of_this_process_reads_a_stream_without_a_number(
    host: SmallHost, database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    async with host.invocations.open(ME, None, "v1") as invocation:
        stream = await host.kernel.call(invocation, Count("open", 20))
        assert [part async for part in stream] == ["a", "b", "c"]
        broken_off = await host.kernel.call(invocation, Count("open", 20))
        assert await broken_off.read() == "a"
        await broken_off.close()
        assert await broken_off.read() is None
    assert [stream.closed for stream in capability.streams] == [True, True]
    assert invocation.usage.tokens == 4 + 2
