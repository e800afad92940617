"""The fixture that gives tests their databases."""

from sqlmodel import text

from llmasos.database import schema
from llmasos.database.engine import Database


def test_a_database_is_empty_and_has_the_newest_schema(database: Database, database_kind: str) -> None:
    assert schema.revision_of(database.url) == schema.newest_revision()
    assert database.engine.dialect.name == database_kind
    with database.read() as session:
        assert session.connection().execute(text("SELECT count(*) FROM invocation")).scalar() == 0


def test_each_call_makes_another_database(new_database_url, database_kind: str) -> None:
    urls = {new_database_url() for _ in range(3)}
    assert len(urls) == 3
    for url in urls:
        assert schema.revision_of(url) == schema.newest_revision()


def test_a_bare_database_has_no_schema(bare_database_url: str) -> None:
    assert schema.revision_of(bare_database_url) is None
