"""A consistent ledger passes, and every kind of inconsistency is found."""

import pytest
from sqlmodel import text

from llmasos import tables  # noqa: F401
from llmasos.database.engine import Database
from llmasos.i18n import render
from llmasos.quotas import doctor, service
from llmasos.quotas.doctor import Holding, LedgerFault, faults
from llmasos.quotas.ledger import Ledger
from llmasos.quotas.meters import Demand, Meter, Scope, Subject, Window
from llmasos.quotas.service import QuotaName


@pytest.fixture
def database(database: Database) -> Database:
    with database.write() as session:
        for scope, scope_id in ((Scope.WORKSPACE, "w"), (Scope.USER, "u")):
            name = QuotaName("w", scope, scope_id, Meter.TOKENS, Window.DAY)
            service.set_quota(session, lambda event, detail: None, name, 100)
    return database


def check(database: Database) -> list[LedgerFault]:
    with database.read() as session:
        return doctor.check(session)


def test_what_adds_up_is_no_fault() -> None:
    assert faults({}, [], frozenset()) == []
    assert faults({1: 0, 2: 30}, [Holding(2, "a", 10), Holding(2, "b", 20)], frozenset({"a", "b"})) == []


@pytest.mark.parametrize(
    ("reserved", "holdings"), [({1: 5}, []), ({1: 5}, [Holding(1, "a", 4)]), ({}, [Holding(1, "a", 4)])]
)
def test_a_window_that_holds_more_or_less_than_its_reservations_is_named(reserved, holdings) -> None:
    (fault,) = faults(reserved, holdings, frozenset({"a"}))
    assert fault.kind == "window"
    assert "Window 1 " in fault.message
    assert "窗口 1 " in render(fault.message, "zh")


def test_what_a_dead_process_reserved_is_reported_once() -> None:
    (fault,) = faults({1: 8, 2: 4}, [Holding(1, "a", 4), Holding(2, "a", 4), Holding(1, "b", 4)], frozenset({"b"}))
    assert fault.kind == "lease"
    assert "2 reservations" in fault.message


async def test_a_database_in_use_adds_up_until_another_program_changes_it(database: Database) -> None:
    ledger = Ledger(database)
    held = await ledger.reserve(Subject("w", "u"), Demand({Meter.TOKENS: 40}))
    assert check(database) == []
    with database.write() as session:
        session.connection().execute(text("UPDATE host_lease SET machine = 'elsewhere', expires_at = 1"))
    assert {fault.kind for fault in check(database)} == {"lease"}, "its lease was not extended"
    with database.write() as session:
        session.connection().execute(text("UPDATE host_lease SET expires_at = 99999999999"))
        session.connection().execute(text("UPDATE ledger_window SET reserved = reserved + 1 WHERE id = 1"))
    assert [fault.kind for fault in check(database)] == ["window"]
    with database.write() as session:
        session.connection().execute(text("UPDATE ledger_window SET reserved = reserved - 1 WHERE id = 1"))
        session.connection().execute(text("DELETE FROM host_lease"))
    assert [fault.kind for fault in check(database)] == ["lease"]
    assert held.granted.amounts == {Meter.TOKENS: 40}
