"""The errors for a database server that cannot be used."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool

from llmasos.database.schema import revision_of
from llmasos.database.server import faults
from llmasos.errors import Unavailable
from llmasos_server.doctor import check_schema, check_server


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "not the URL of a database"),
        ("mysql://somebody@host/name", "begins with mysql://"),
        ("postgresql://somebody@host/name", r"postgresql\+psycopg://"),
        ("postgresql+psycopg://somebody@127.0.0.1:1/name", "cannot be reached.*that the server runs"),
    ],
)
def test_a_url_that_leads_nowhere_is_told_in_one_line(url: str, said: str) -> None:
    with pytest.raises(Unavailable, match=said) as raised:
        revision_of(url)
    assert "\n" not in str(raised.value)
    finding = check_schema(url)
    assert (finding.status, list(check_server(url))) == ("problem", [])


def test_a_missing_driver_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Unavailable, match=r"pip install 'psycopg\[binary\]"):
        revision_of("postgresql+psycopg://somebody@127.0.0.1:1/name")


@pytest.fixture
def server_url(request: pytest.FixtureRequest, database_kind: str, database_url: str) -> str:
    if database_kind != "postgresql":
        pytest.skip("of a server")
    return database_url


def _as_owner(url: str, *statements: str) -> None:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            try:
                connection.execute(text(statement))
            except ProgrammingError as error:  # a server that was named need not let its user do so
                pytest.skip(str(error.orig))
    engine.dispose()


def test_a_server_that_is_right_has_no_faults(server_url: str) -> None:
    assert faults(server_url) == []
    assert [finding.status for finding in check_server(server_url)] == ["ok"]


def test_a_user_who_may_not_make_tables_is_told_what_to_run(server_url: str) -> None:
    role = f"llmasos_test_{uuid4().hex}"  # workers and other suites may share a server
    _as_owner(server_url, f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        guest = make_url(server_url).set(username=role, password="x")
        (fault,) = faults(guest.render_as_string(hide_password=False))
        assert f"GRANT CREATE ON SCHEMA public TO {role}" in str(fault)
    finally:
        _as_owner(server_url, f"DROP ROLE {role}")


def test_a_database_of_another_encoding_is_a_fault(server_url: str) -> None:
    name = f"llmasos_test_{uuid4().hex}"
    _as_owner(server_url, f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        latin = make_url(server_url).set(database=name)
        (fault,) = faults(latin.render_as_string(hide_password=False))
        assert "encoded in LATIN1" in str(fault)
    finally:
        _as_owner(server_url, f"DROP DATABASE {name}")


def test_commands_work_on_a_server(server_url: str, tmp_path: Path, new_database_url: Callable[[], str]) -> None:
    """10, section 4: the commands that an operator meets first, and a backup from one kind into the other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMASOS_")}
    passphrase = {"LLMASOS_BACKUP_PASSPHRASE": "a lamp, a lens, a long night"}

    def llmasos(*words: str, url: str = server_url) -> str:
        environment = {**kept, **passphrase, "LLMASOS_HOME": str(tmp_path / "home"), "LLMASOS_DATABASE_URL": url}
        command = [sys.executable, "-m", "llmasos_server.cli", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, input="v")
        assert done.returncode == 0, done.stderr
        return done.stdout

    llmasos("secrets", "set", "api_key")
    assert "as it was written" in llmasos("audit", "verify")
    llmasos("backup", str(tmp_path / "b.llmbackup"))
    elsewhere = f"sqlite:///{tmp_path / 'home' / 'llmasos.db'}"
    llmasos("restore", str(tmp_path / "b.llmbackup"), url=elsewhere)
    assert "api_key" in llmasos("secrets", "list", url=elsewhere)
