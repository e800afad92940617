"""The audit log: every change of it is found, and the first one named."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, text

from llmasos import tables  # noqa: F401
from llmasos.database.engine import Database
from llmasos.kernel import audit
from llmasos.kernel.audit import Line


@pytest.fixture
def database(tmp_path: Path):
    with Database(f"sqlite:///{tmp_path}/t.db") as database:
        SQLModel.metadata.create_all(database.engine)
        with database.write() as session:
            for number in range(1, 6):
                detail = {"n": number, "ü": [1.5, None, {"deep": "\ud800"}]}
                audit.record(session, Line("w", "u", "model.generate", app="a/b", detail=detail))
        yield database


def change(database: Database, *statements: str) -> None:
    with database.write() as session:
        for statement in ("DROP TRIGGER audit_entry_no_update", "DROP TRIGGER audit_entry_no_delete", *statements):
            session.connection().execute(text(statement))


def verify(database: Database) -> audit.Verification:
    with database.read() as session:
        return audit.verify(session)


def test_a_log_that_nobody_touched_is_intact_from_session_and_writer_alike(database: Database) -> None:
    database.write_queue.submit(lambda transaction: audit.append(transaction, Line("w", "u", "x"))).result()
    found = verify(database)
    assert (found.intact, found.lines, found.seq) == (True, 6, None)
    assert len(found.head) == 64


def test_an_empty_log_is_intact(tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path}/e.db") as database:
        SQLModel.metadata.create_all(database.engine)
        assert verify(database).intact


@pytest.mark.parametrize("statement", ["UPDATE audit_entry SET outcome = 'ok'", "DELETE FROM audit_entry"])
def test_the_database_itself_refuses_to_change_a_line(database: Database, statement: str) -> None:
    with pytest.raises(IntegrityError, match="append-only"), database.write() as session:
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
