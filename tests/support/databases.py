"""Fresh databases for tests, on SQLite and on PostgreSQL.

A test that uses `database`, `database_url` or `new_database_url` gets the marker `database` and runs on SQLite, or with
`--database postgresql` on PostgreSQL, or with `--database both` once on each. Each test has a database of its own, a
copy of one that the migrations made once.

PostgreSQL is the server that `LLMASOS_DATABASE_URL` names, and then the tests run on it; otherwise a private one,
started from Debian's binaries when a test first asks for it. Without either, the tests are skipped with the reason.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.pool import NullPool

KINDS = ("sqlite", "postgresql")
# Renamed in the environment, or every command that a test starts would write to it. Workers of pytest-xdist inherit it.
if "LLMASOS_DATABASE_URL" in os.environ:
    os.environ["PYTEST_DATABASE_URL"] = os.environ.pop("LLMASOS_DATABASE_URL")
NAMED_SERVER = os.environ.get("PYTEST_DATABASE_URL", "")

NewDatabaseUrl = Callable[[], str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=(*KINDS, "both"), help="run the tests of the database on it")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "database: touches the database, and runs on SQLite or on PostgreSQL")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database_kind" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--database") or ("postgresql" if NAMED_SERVER else "sqlite")
        metafunc.parametrize("database_kind", KINDS if chosen == "both" else [chosen])


def pytest_itemcollected(item: pytest.Item) -> None:
    if "database_kind" in getattr(item, "fixturenames", ()):
        item.add_marker("database")


@pytest.fixture
def database(database_url: str):
    """An open, empty database with the newest schema."""
    from llmasos.database.engine import Database

    with Database(database_url) as database:
        yield database


@pytest.fixture
def database_url(new_database_url: NewDatabaseUrl) -> str:
    """The URL of an empty database with the newest schema."""
    return new_database_url()


@pytest.fixture
def new_database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabaseUrl]:
    """Makes empty databases with the newest schema; returns their URLs."""
    if database_kind == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        yield lambda: _copy_of(template, tmp_path)
        return
    server: Server = request.getfixturevalue("postgresql_server")
    made: list[str] = []

    def new() -> str:
        made.append(server.create(server.template))
        return made[-1]

    yield new
    for url in made:
        server.drop(url)


@pytest.fixture
def bare_database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without a schema."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'llmasos.db'}"
        return
    server: Server = request.getfixturevalue("postgresql_server")
    url = server.create("template0")
    yield url
    server.drop(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that the migrations made."""
    from llmasos.database import schema

    file = tmp_path_factory.mktemp("sqlite-template") / "llmasos.db"
    schema.migrate_to(f"sqlite:///{file}", "head")
    return file


def _copy_of(template: Path, folder: Path) -> str:
    file = folder / "llmasos.db"
    if file.exists():
        file = folder / f"llmasos-{uuid.uuid4().hex}.db"
    shutil.copyfile(template, file)
    return f"sqlite:///{file}"


class Server:
    """A PostgreSQL server, with a template that the migrations made."""

    def __init__(self, url: str) -> None:
        self._url: URL = make_url(url)
        self._engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        template = self.create("template0")
        try:
            from llmasos.database import schema

            schema.migrate_to(template, "head")
        except BaseException:
            self.drop(template)
            raise
        self.template = _name_of(template)

    def create(self, template: str) -> str:
        """Copy a template; returns the URL of the copy."""
        name = f"llmasos_test_{uuid.uuid4().hex}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" ENCODING \'UTF8\'')
        return self._url.set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        """Remove a database, with the connections that a killed process left."""
        self._execute(f'DROP DATABASE IF EXISTS "{_name_of(url)}" WITH (FORCE)')

    def close(self) -> None:
        """Remove the template."""
        self.drop(self._url.set(database=self.template).render_as_string(hide_password=False))
        self._engine.dispose()

    def _execute(self, statement: str) -> None:
        with self._engine.connect() as connection:
            connection.execute(text(statement))


def _name_of(url: str) -> str:
    return make_url(url).database or ""


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """The named server, or a private one for this test process."""
    if NAMED_SERVER:
        server = Server(NAMED_SERVER)
        yield server
        server.close()
        return
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL: set LLMASOS_DATABASE_URL, or install Debian's postgresql")
    with tempfile.TemporaryDirectory(prefix="llmasos-postgresql-") as folder:
        process = _start(programs, Path(folder))
        try:
            yield Server(f"postgresql+psycopg://postgres@/postgres?host={folder}")
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nobody needs the data
            process.wait()


def _programs() -> Path | None:
    """The folder of the newest installed server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def _start(programs: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start a server that listens on a socket in `folder`, and dies with this process."""
    user: str | None = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = next(name for name in ("postgres", "nobody") if _exists(name))
        shutil.chown(folder, user)
    data = folder / "data"
    words = ["--no-sync", "--no-locale", "--encoding=UTF8", "--auth=trust", "--username=postgres"]
    command = [str(programs / "initdb"), f"--pgdata={data}", *words]
    subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "max_connections": "200",
        "autovacuum": "off",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(programs / "postgres"), "-D", str(data), *options],
            user=user,
            cwd=folder,
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread of ours holds a lock here
        )
    ready = [str(programs / "pg_isready"), "--quiet", f"--host={folder}"]
    give_up = time.monotonic() + 60
    while subprocess.run(ready, check=False).returncode:
        if process.poll() is not None or time.monotonic() > give_up:
            process.kill()
            raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()}")
        time.sleep(0.05)
    return process


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGQUIT)
