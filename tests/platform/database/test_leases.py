"""Leases: a process of this machine is checked directly, one of another machine by the database's clock."""

import os
import subprocess
import sys

import pytest
from sqlmodel import select

from llmasos.database.engine import Database
from llmasos.database.leases import LEASE_SECONDS, HostLease, Lease, is_dead, living, machine_id, process_born

LIVING = """
import sys
from llmasos.database.engine import Database
from llmasos.database.leases import Lease
with Database(sys.argv[1]) as database:
    lease = Lease(database)
    lease.start()
    database.write_queue.submit(lambda it: None).result()
    print(lease.id, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(database: Database):
    """Another process with a lease."""
    command = [sys.executable, "-c", LIVING, database.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.lease_id = process.stdout.readline().strip()
        yield process
        process.kill()


def swept(database: Database) -> list[str]:
    """The leases whose holders a new process takes for dead."""
    freed: list[str] = []
    lease = Lease(database)
    lease.on_release(lambda _transaction, id_: freed.append(id_) or 1)
    database.write_queue.submit(lease.sweep).result()
    return freed


def change(database: Database, statement: str) -> None:
    with database.write() as session:
        session.connection().exec_driver_sql(statement)


def test_a_live_process_of_this_machine_is_alive_whatever_the_clock_says(database: Database, other) -> None:
    """10-12: a laptop that slept took its own processes for dead."""
    change(database, "UPDATE host_lease SET expires_at = 1")
    assert swept(database) == []
    with database.read() as session:
        assert living(session) == {other.lease_id}
    other.kill()
    other.wait()
    assert swept(database) == [other.lease_id]
    with database.read() as session:
        assert session.exec(select(HostLease)).all() == []


def test_a_process_id_that_is_used_again_is_another_process(database: Database, other) -> None:
    change(database, "UPDATE host_lease SET born = '1'")
    assert swept(database) == [other.lease_id]


def test_a_process_of_another_machine_lives_as_long_as_it_extends_its_lease(database: Database, other) -> None:
    other.kill()
    other.wait()
    change(database, "UPDATE host_lease SET machine = 'elsewhere'")
    assert swept(database) == []
    change(database, f"UPDATE host_lease SET expires_at = expires_at - {LEASE_SECONDS + 5}")
    assert swept(database) == [other.lease_id]


def test_a_lease_ends_by_the_clock_of_the_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """10-12: the clocks of two machines need not agree."""
    monkeypatch.setattr("time.time", lambda: 1.0)
    lease = Lease(database)
    lease.start()
    database.write_queue.submit(lambda it: None).result()
    with database.read() as session:
        [row] = session.exec(select(HostLease))
        assert row.expires_at > 1_700_000_000
    lease.stop()


def test_a_machine_that_cannot_be_named_is_judged_by_time() -> None:
    mine = machine_id(), os.getpid(), process_born(os.getpid())
    assert not is_dead(*mine, expires_at=0, now=10)
    assert is_dead("", *mine[1:], expires_at=9, now=10)
    assert not is_dead("", *mine[1:], expires_at=10, now=10)
