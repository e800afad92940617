"""Read sessions and write sessions."""

import threading

import pytest
from sqlmodel import Session, select

from llmasos.database.engine import Database, ReadSession, WriteSession, utc_now
from llmasos.installs.tables import Workspace


def workspace(id_: str) -> Workspace:
    return Workspace(id=id_, name=id_, created_at=utc_now())


def test_read_and_write_sessions_are_of_different_types(database: Database) -> None:
    with database.read() as reading, database.write() as writing:
        assert isinstance(reading, ReadSession)
        assert isinstance(writing, WriteSession)
        assert isinstance(reading, Session)


def test_a_read_session_reads_one_snapshot_and_refuses_to_write(database: Database) -> None:
    with database.read() as session:
        assert session.exec(select(Workspace)).all() == []
        with database.write() as writing:
            writing.add(workspace("w"))
        assert session.exec(select(Workspace)).all() == []
        session.add(workspace("x"))
        with pytest.raises(TypeError, match=r"Database\.write"):
            session.flush()
        session.expunge_all()


def test_a_transaction_that_fails_writes_nothing(database: Database) -> None:
    with pytest.raises(ValueError), database.write() as session:
        session.add(workspace("w"))
        session.flush()
        raise ValueError
    with database.read() as session:
        assert session.exec(select(Workspace)).all() == []


def test_sessions_that_write_never_overlap(database: Database) -> None:
    """What one decides on its reads holds until it commits, on PostgreSQL too."""

    def add_if_absent() -> None:
        with database.write() as session:
            if session.get(Workspace, "w") is None:
                session.add(workspace("w"))
                added.append(1)

    added: list[int] = []
    threads = [threading.Thread(target=add_if_absent) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert added == [1]


def test_a_lookup_sees_what_was_committed_before(database: Database) -> None:
    query = "SELECT name FROM workspace WHERE id = ?"
    assert database.lookup(query, "w") is None
    with database.write() as session:
        session.add(workspace("w"))
    assert database.lookup(query, "w") == ("w",)
    with pytest.raises(Exception, match="nowhere"):
        database.lookup("SELECT 1 FROM nowhere")
    assert database.lookup(query, "w") == ("w",)
