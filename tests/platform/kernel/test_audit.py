"""The audit log: every change of it is found, and the first one is named."""

import asyncio
import hashlib
import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError
from sqlmodel import select, text

from llmasos import tables  # noqa: F401
from llmasos.database.engine import Database
from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.kernel.observation import AuditFollower
from llmasos.kernel.tables import AuditEntry


@pytest.fixture
def database(database: Database) -> Database:
    with database.write() as session:
        for number in range(1, 6):
            detail = {"n": number, "ü": [1.5, None, {"deep": "\ud800\0"}]}
            audit.record(session, Line("w", "u", "model.generate", app="a/b", detail=detail))
    return database


def change(database: Database, *statements: str) -> None:
    free = ["DROP TRIGGER audit_entry_no_update", "DROP TRIGGER audit_entry_no_delete"]
    if database.engine.dialect.name == "postgresql":
        free = ["DROP TRIGGER audit_entry_no_change ON audit_entry"]
        statements = tuple(
            it.replace("replace(detail, '2', '3')", "replace(detail::text, '2', '3')::json") for it in statements
        )
    with database.write() as session:
        for statement in (*free, *statements):
            session.connection().execute(text(statement))


def verify(database: Database) -> audit.Verification:
    with database.read() as session:
        return audit.verify(session)


def test_a_log_that_nobody_touched_is_intact_from_session_and_queue_alike(database: Database) -> None:
    database.write_queue.submit(lambda transaction: audit.append(transaction, Line("w", "u", "x"))).result()
    found = verify(database)
    assert (found.intact, found.lines, found.seq) == (True, 6, None)
    assert [(name, len(head)) for name, head in found.heads.items()] == [("w", 64)]


def test_an_empty_log_is_intact(new_database_url) -> None:
    with Database(new_database_url()) as database:
        assert verify(database) == audit.Verification(0, True, {})


@pytest.mark.parametrize("statement", ["UPDATE audit_entry SET outcome = 'ok'", "DELETE FROM audit_entry"])
def test_the_database_itself_refuses_to_change_a_line(database: Database, statement: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"), database.write() as session:
        session.connection().execute(text(statement))
    assert verify(database).intact


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE audit_entry SET outcome = 'denied' WHERE seq = 3", 3),
        ("UPDATE audit_entry SET detail = replace(detail, '2', '3') WHERE seq = 2", 2),
        ("UPDATE audit_entry SET user_id = 'v' WHERE seq = 1", 1),
        ("UPDATE audit_entry SET at = '2020-01-01 00:00:00.000000' WHERE seq = 4", 4),
        ("UPDATE audit_entry SET hash = previous_hash WHERE seq = 4", 4),
        ("UPDATE audit_entry SET invocation_id = 'x' WHERE seq = 5", 5),
        ("DELETE FROM audit_entry WHERE seq = 3", 3),
        ("DELETE FROM audit_entry WHERE seq = 1", 1),
        ("DELETE FROM audit_entry WHERE seq > 3", 4),
        ("DELETE FROM audit_entry", 1),
        ("DELETE FROM audit_head", 6),
        ("UPDATE audit_head SET count = 4", 6),
    ],
)
def test_a_change_is_found_where_it_begins(database: Database, statement: str, seq: int) -> None:
    """SECURITY M4."""
    change(database, statement)
    found = verify(database)
    assert (found.intact, found.seq) == (False, seq)
    assert found.reason


def test_a_line_that_fails_with_its_transaction_leaves_no_gap(database: Database) -> None:
    def fail(transaction) -> None:
        audit.append(transaction, Line("w", "u", "x"))
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            database.write_queue.submit(fail).result()
        database.write_queue.submit(lambda transaction: audit.append(transaction, Line("w", "u", "y"))).result()
    assert (verify(database).intact, verify(database).lines) == (True, 7)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists
)


@given(st.dictionaries(st.text(), VALUES), st.lists(st.none() | st.text(), max_size=5), st.integers(1))
def test_a_line_is_hashed_as_the_json_that_the_module_promises(detail: dict, texts: list, seq: int) -> None:
    def plain(value: object) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)

    text = audit._canonical(detail)
    assert text == plain(detail)
    expected = hashlib.sha256(f"before\n{plain([seq, *texts, text])}".encode()).hexdigest()
    assert audit._hash("before", seq, [*texts, text]) == expected


def test_each_workspace_has_a_chain_of_its_own(database: Database) -> None:
    """SECURITY M4."""

    def both(transaction) -> None:
        audit.append(transaction, Line("v", "u", "x"))
        audit.append(transaction, Line("w", "u", "y"))
        audit.append(transaction, Line("v", "u", "z"))

    database.write_queue.submit(both).result()
    with database.read() as session:
        rows = session.exec(select(AuditEntry).order_by(AuditEntry.workspace_id, AuditEntry.seq)).all()
        assert [(row.workspace_id, row.seq) for row in rows] == [("v", 1), ("v", 2), *(("w", n) for n in range(1, 7))]
        assert audit.verify(session, "v").lines == 2
    assert (verify(database).lines, set(verify(database).heads)) == (8, {"v", "w"})
    change(database, "UPDATE audit_entry SET outcome = 'denied' WHERE workspace_id = 'v' AND seq = 2")
    assert (verify(database).workspace, verify(database).seq) == ("v", 2)
    with database.read() as session:
        assert audit.verify(session, "w").intact


def test_hosts_of_two_workspaces_do_not_wait_for_each_other(database: Database, database_kind: str) -> None:
    """10: one chain a workspace, so that hosts do not queue at one row."""
    if database_kind == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    with Database(database.url) as elsewhere, database.engine.begin() as connection:
        connection.execute(text("SELECT * FROM audit_head WHERE workspace_id = 'w' FOR UPDATE"))
        pending = elsewhere.write_queue.submit(lambda it: audit.append(it, Line("w", "u", "x")))
        other = database.write_queue.submit(lambda it: audit.append(it, Line("v", "u", "x")))
        other.result(30)
        assert not pending.done
    pending.result(30)


def test_lines_of_many_processes_make_one_chain(database: Database) -> None:
    code = """
import sys
from llmasos import tables
from llmasos.database.engine import Database
from llmasos.kernel import audit
with Database(sys.argv[1]) as database:
    for number in range(25):
        line = audit.Line("vw"[number % 2], "u", "x")
        database.write_queue.submit(lambda it: audit.append(it, line)).result()
"""
    children = [subprocess.Popen([sys.executable, "-c", code, database.url]) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    assert (verify(database).intact, verify(database).lines) == (True, 105)


async def test_a_follower_tells_each_line_once_also_while_it_is_stopped(database: Database) -> None:
    """10-16: `stop` told a second time what a thread was telling."""
    told: list[str] = []

    def slowly(record) -> None:
        time.sleep(0.02)
        told.append(record.event)

    follower = AuditFollower(database, slowly)
    lines = [Line("wv"[n % 2], "u", f"e{n}") for n in range(20)]
    for line in lines:
        await database.write_queue.submit(lambda it, line=line: audit.append(it, line))
    telling = asyncio.create_task(asyncio.to_thread(follower._tell))
    await asyncio.sleep(0.05)
    await follower.stop()
    await telling
    assert sorted(told) == sorted(line.event for line in lines)
    assert [event for event in told if int(event[1:]) % 2] == [line.event for line in lines[1::2]]


def test_a_server_with_another_time_zone_verifies_all_the_same(database: Database, database_kind: str) -> None:
    if database_kind == "sqlite":
        pytest.skip("SQLite has no time zone")
    with database.write() as session:
        session.connection().execute(
            text(f"ALTER DATABASE \"{database.engine.url.database}\" SET timezone TO 'Asia/Kolkata'")
        )
    with Database(database.url) as elsewhere:
        with elsewhere.write() as session:
            assert session.connection().execute(text("SHOW timezone")).scalar() == "Asia/Kolkata"
            audit.record(session, Line("w", "u", "x"))
        assert (verify(elsewhere).intact, verify(elsewhere).lines) == (True, 6)
