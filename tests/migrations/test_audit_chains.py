"""The migration of the audit log's chains: an upgrade loses no hash, and a downgrade invents none."""

from typing import Any

import pytest
from sqlalchemy import create_engine

from llmasos.database import schema
from llmasos.database.engine import Database
from llmasos.kernel import audit
from llmasos.kernel.audit import Line


def test_the_audit_log_keeps_its_hashes_up_and_down(new_database_url) -> None:
    """10: the single chain of before is sealed, each workspace's continues it, and one chain again is intact too."""
    url = new_database_url()

    def write(database: Database, *workspaces: str) -> None:
        for name in workspaces:
            with database.write() as session:
                audit.record(session, Line(name, "u", "x", detail={"n": 1, "ü": "\ud800"}))

    def chain(lines: str) -> list[tuple[Any, ...]]:
        engine = create_engine(url)
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(
                f"SELECT seq, workspace_id, previous_hash, hash FROM {lines} ORDER BY seq"
            )
            found = [tuple(row) for row in rows]
        engine.dispose()
        return found

    with Database(url) as database:
        write(database, "v", "w", "v")
    schema.migrate_to(url, "0004")
    # The two chains became one, each line following the one before.
    before = chain("audit_entry")
    assert [row[0] for row in before] == [1, 2, 3]
    assert [row[2] for row in before] == ["", before[0][3], before[1][3]]
    schema.migrate_to(url, "head")
    assert chain("audit_entry") == before, "no hash was changed"
    with Database(url) as database:
        with database.read() as session:
            assert (audit.verify(session).intact, audit.verify(session).lines) == (True, 3)
        write(database, "w", "x", "w")
        with database.read() as session:
            assert (audit.verify(session).intact, audit.verify(session).lines) == (True, 6)
            assert audit.verify(session, "x").lines == 4, "it continues the sealed chain"
    schema.migrate_to(url, "0004")
    assert chain("audit_entry")[:3] == before
    assert [row[0] for row in chain("audit_entry")] == [1, 2, 3, 4, 5, 6]
    schema.migrate_to(url, "head")
    with Database(url) as database, database.read() as session:
        assert (audit.verify(session).intact, audit.verify(session).lines) == (True, 6)


def test_a_broken_audit_log_is_not_made_whole_on_the_way_down(new_database_url) -> None:
    url = new_database_url()
    with Database(url) as database:
        with database.write() as session:
            audit.record(session, Line("w", "u", "x"))
        with database.write() as session:
            session.connection().exec_driver_sql("UPDATE audit_head SET count = 7")
    with pytest.raises(RuntimeError, match="not intact"):
        schema.migrate_to(url, "0004")
    assert schema.revision_of(url) == schema.newest_revision()
