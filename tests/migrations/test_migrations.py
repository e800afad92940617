"""The migrations: they match the tables, are atomic under kill -9, and run once among many processes."""

import itertools
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, create_engine, event, inspect
from sqlmodel import SQLModel

import llmasos_server.tables  # noqa: F401  (the metadata is whole)
from llmasos.database import schema
from llmasos.errors import Unavailable
from llmasos.i18n import Message, from_text, render, to_text


def url_of(home: Path) -> str:
    return f"sqlite:///{home / 'llmasos.db'}"


@pytest.fixture
def migrated(bare_database_url: str, tmp_path: Path) -> Iterator[Engine]:
    assert schema.ensure_schema(bare_database_url, tmp_path)
    engine = create_engine(bare_database_url)
    yield engine
    engine.dispose()


def triggers_of(engine: Engine) -> dict[str, str]:
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    if engine.dialect.name == "postgresql":
        query = "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(query).all()
    return {name: " ".join(sql.split()) for name, sql in rows}


def test_the_migrated_schema_is_that_of_the_tables(migrated: Engine, new_database_url, tmp_path: Path) -> None:
    """When this fails, write a migration from `migrations/script.py.mako`."""
    with migrated.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    fresh = create_engine(schema_of_the_tables(migrated, new_database_url))
    assert triggers_of(migrated) == triggers_of(fresh)
    for table in SQLModel.metadata.tables:
        inspected = [inspect(engine) for engine in (migrated, fresh)]
        checks = [{c["name"]: c["sqltext"] for c in it.get_check_constraints(table)} for it in inspected]
        assert checks[0] == checks[1], table
        keys = [it.get_pk_constraint(table)["constrained_columns"] for it in inspected]
        assert keys[0] == keys[1], table
    fresh.dispose()


def schema_of_the_tables(like: Engine, new_database_url) -> str:
    """A database that SQLModel made, without the migrations."""
    url = new_database_url()
    engine = create_engine(url)
    SQLModel.metadata.drop_all(engine)
    SQLModel.metadata.create_all(engine)
    engine.dispose()
    return url


def a_row(metadata: MetaData, table: str) -> dict[str, Any]:
    """A row that satisfies every constraint: the same names in every table, so that references meet."""
    plain: dict[type, Any] = {
        str: "x",
        int: 1,
        bool: True,
        bytes: b"x",
        float: 1.0,
        dict: {},
        date: date(2026, 1, 1),
        datetime: datetime(2026, 1, 1, tzinfo=UTC),
    }
    row: dict[str, Any] = {}
    for column in metadata.tables[table].columns:
        try:
            kind = column.type.python_type
        except NotImplementedError:
            kind = dict
        row[column.name] = plain.get(kind, {})
    if "limit" in row:
        row["limit"] = 10
    return row


def versions() -> list[str]:
    return sorted(path.name[:4] for path in (schema.migrations_folder() / "versions").glob("[0-9]*.py"))


def test_secrets_of_before_go_to_the_apps_that_were_granted_them_and_no_key_of_a_model_does(tmp_path: Path) -> None:
    """11-S7."""
    schema.migrate_to(url_of(tmp_path), "0005")
    engine = create_engine(url_of(tmp_path))
    metadata = MetaData()
    metadata.reflect(engine)
    scope = {"capability": "secrets", "secrets": [{"name": "token"}, {"name": "openai"}]}
    rows: dict[str, list[dict[str, Any]]] = {
        "workspace": [{"id": "default", "name": "default"}],
        "secret": [
            {"workspace_id": "default", "user_id": "local", "name": name, "ciphertext": name}
            for name in ("token", "openai", "unused")
        ],
        "model": [{"name": "m", "entry": {"key": "secret:openai"}}],
        "installation": [{"id": "i", "workspace_id": "default", "app_id": "acme/app"}],
        "installed_release": [{"id": 1, "installation_id": "i"}],
        "grant": [{"installed_release_id": 1, "capability": "secrets", "scope": scope, "revoked_at": None}],
    }
    with engine.begin() as connection:
        for table, given in rows.items():
            for row in given:
                connection.execute(metadata.tables[table].insert().values({**a_row(metadata, table), **row}))
    engine.dispose()
    schema.migrate_to(url_of(tmp_path), "0006")
    with closing(sqlite3.connect(tmp_path / "llmasos.db")) as connection:
        found = connection.execute("SELECT app_id, name, ciphertext FROM secret ORDER BY app_id, name").fetchall()
    hosts = [("", name, name) for name in ("openai", "token", "unused")]
    assert found == [*hosts, ("acme/app", "token", "token")]


def test_up_and_down_and_up_again_with_a_row_in_every_table(bare_database_url: str) -> None:
    url = bare_database_url
    for below, above in itertools.pairwise(["base", *versions()]):
        schema.migrate_to(url, above)
        engine = create_engine(url)
        metadata = MetaData()
        metadata.reflect(engine)
        with engine.begin() as connection:
            for table in metadata.sorted_tables:
                # The lines of the audit log must be those that the code writes: they have a test of their own.
                if table.name.startswith(("audit_", "alembic_")):
                    continue
                if connection.execute(table.select()).first() is None:
                    connection.execute(table.insert().values(a_row(metadata, table.name)))
        engine.dispose()
        schema.migrate_to(url, below)
        schema.migrate_to(url, above)
        if url.startswith("sqlite"):
            with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    schema.migrate_to(url, "base")
    assert schema.revision_of(url) is None


def test_stored_errors_keep_both_languages_up_and_down(bare_database_url: str) -> None:
    """10, section 3: an old row shows its two texts, and a new one is rendered on the way down."""
    url = bare_database_url
    schema.migrate_to(url, "0003")
    engine = create_engine(url)
    metadata = MetaData()
    metadata.reflect(engine)
    invocation = metadata.tables["invocation"]
    old = {
        "both": ('It\'s {full}: "x".', "已满。"),
        "english": ("no", None),
        "same": ("no", "no"),
        "none": (None, None),
    }
    with engine.begin() as connection:
        for id_, (english, chinese) in old.items():
            texts = {"id": id_, "error_message": english, "error_message_zh": chinese}
            connection.execute(invocation.insert().values({**a_row(metadata, "invocation"), **texts}))

    def stored(*columns: str) -> dict[str, tuple[str | None, ...]]:
        with engine.connect() as connection:
            found = connection.exec_driver_sql(f"SELECT id, {', '.join(columns)} FROM invocation").fetchall()
        return {row[0]: tuple(row[1:]) for row in found}

    schema.migrate_to(url, "0004")
    messages = {id_: from_text(text) for id_, (text,) in stored("error_message").items() if text}
    shown = {id_: (str(message), render(message, "zh")) for id_, message in messages.items()}
    assert shown == {"both": old["both"], "english": ("no", "no"), "same": ("no", "no")}
    new = Message("There is no such thing, or you may not see it.")
    with engine.begin() as connection:
        changed = invocation.c.id == "none"
        connection.execute(invocation.update().where(changed).values(error_message=to_text(new)))
    schema.migrate_to(url, "0003")
    assert stored("error_message", "error_message_zh") == {
        "both": old["both"],
        "english": ("no", "no"),
        "same": ("no", "no"),
        "none": (str(new), "不存在，或者你无权查看。"),
    }
    engine.dispose()


# One process imports everything, and forks a child for each statement at which to die.
KILLER = """
import os, shutil, signal, sys, json
from pathlib import Path
import alembic.command, llmasos.database.schema as schema
from sqlalchemy import Engine, event
base, outcomes = Path(sys.argv[1]), []
for step in range(1, 1000):
    home = base / str(step)
    if len(sys.argv) > 2:
        home.mkdir()
        shutil.copy(sys.argv[2], home / "llmasos.db")
    child = os.fork()
    if child == 0:
        seen = 0
        def count(*_):
            global seen
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
        event.listen(Engine, "before_cursor_execute", count)
        event.listen(Engine, "commit", count)
        schema.ensure_schema(f"sqlite:///{home / 'llmasos.db'}", home)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    outcomes.append(os.waitstatus_to_exitcode(status))
    if outcomes[-1] == 0:
        break
print(json.dumps(outcomes))
"""


def test_killed_at_any_statement_the_database_is_as_before_or_as_after(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLER, str(tmp_path)], capture_output=True, text=True, check=True)
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 30
    assert set(outcomes[:-1]) == {-signal.SIGKILL}
    for step in range(1, len(outcomes) + 1):
        home = tmp_path / str(step)
        assert schema.revision_of(url_of(home)) in (None, schema.newest_revision())
        if schema.revision_of(url_of(home)) is None and (home / "llmasos.db").exists():
            with closing(sqlite3.connect(home / "llmasos.db")) as connection:
                assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    # And the next start continues as if nothing had happened.
    last = tmp_path / str(len(outcomes) - 1)
    schema.ensure_schema(url_of(last), last)
    assert schema.revision_of(url_of(last)) == schema.newest_revision()


def test_killed_at_any_statement_of_an_upgrade_the_rows_are_there_and_the_next_start_goes_on(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    schema.migrate_to(url_of(first), "0001")
    engine = create_engine(url_of(first))
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.begin() as connection:
        connection.execute(metadata.tables["invocation"].insert().values(a_row(metadata, "invocation")))
    engine.dispose()
    command = [sys.executable, "-c", KILLER, str(tmp_path), str(first / "llmasos.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 3
    assert set(outcomes[:-1]) == {-signal.SIGKILL}
    for step in range(1, len(outcomes) + 1):
        home = tmp_path / str(step)
        assert schema.revision_of(url_of(home)) in ("0001", schema.newest_revision())
        schema.ensure_schema(url_of(home), home)
        with closing(sqlite3.connect(home / "llmasos.db")) as connection:
            assert connection.execute("SELECT id, error_message FROM invocation").fetchall() == [("x", "x")]


def test_of_processes_that_begin_at_once_one_migrates(bare_database_url: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from llmasos.database.schema import ensure_schema\n"
        "print(ensure_schema(sys.argv[1], Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, bare_database_url, str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = sorted(child.communicate()[0].strip() for child in children)
    assert answers == ["False", "False", "True"]


def test_a_schema_of_a_newer_llmasos_is_refused_and_left_alone(database_url: str, tmp_path: Path) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(schema.SchemaNewer, match="upgrade LLMasOS"):
        schema.ensure_schema(database_url, tmp_path)
    assert schema.revision_of(database_url) == "9999"


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "llmasos.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Unavailable, match="is not a database"):
        schema.ensure_schema(url_of(tmp_path), tmp_path)


def test_looking_at_a_database_that_is_not_there_makes_none(tmp_path: Path) -> None:
    assert schema.revision_of(url_of(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_changes_nothing_and_says_what_to_check(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "import llmasos.database.schema as s; import alembic.command\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "home = Path(sys.argv[1])\n"
        "try: s.ensure_schema(f\"sqlite:///{home / 'llmasos.db'}\", home)\n"
        "except s.Unavailable as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert "Nothing was changed" in done.stdout
    assert schema.revision_of(url_of(tmp_path)) is None
    assert schema.ensure_schema(url_of(tmp_path), tmp_path)


def test_the_first_migration_is_postgresql_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(schema.migrations_folder()))
    config.attributes["url"] = "postgresql://example/llmasos"
    command.upgrade(config, "head", sql=True)
    sql = capsys.readouterr().out
    for table in SQLModel.metadata.tables:
        assert f"CREATE TABLE {table} " in sql or f'CREATE TABLE "{table}" ' in sql
    assert "TIMESTAMP WITH TIME ZONE" in sql


def test_every_statement_is_listened_to() -> None:
    # The killer relies on this event; if SQLAlchemy renamed it, the test above would prove nothing.
    engine = create_engine("sqlite://")
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *a: seen.append(a[2]))
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    engine.dispose()
    assert seen == ["SELECT 1"]
