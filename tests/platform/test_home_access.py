"""A home is accessible to its owner alone, whichever command creates it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmasos.database import schema
from llmasos.database.engine import Database
from llmasos.home import make_private_folder
from llmasos.home_access import close_access, foreign_content, loose_access, lost_key
from llmasos.runtimes.prepared import locked
from llmasos.secrets import SecretOwner, Secrets


@pytest.fixture(autouse=True)
def loose_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


def test_a_folder_inside_makes_the_home_private_too(tmp_path: Path) -> None:
    """11-S15: `build` as the first command left the home open to all."""
    make_private_folder(tmp_path / "home" / "builds" / "deep")
    assert [mode(tmp_path / name) for name in ("home", "home/builds", "home/builds/deep")] == ["0o700"] * 3
    (tmp_path / "home").chmod(0o750)
    make_private_folder(tmp_path / "home" / "other")
    assert mode(tmp_path / "home") == "0o750", "what somebody chose is doctor's to tell"


async def test_preparing_an_app_as_the_first_thing_makes_the_home_private_too(tmp_path: Path) -> None:
    """11-S15, its kind: `build` of a native app made the home 0755.

    What runners read in it is open: with a private folder, those of root stayed root.
    """
    async with locked(tmp_path / "home" / "environments", "0" * 64):
        assert [mode(tmp_path / name) for name in ("home", "home/environments")] == ["0o700", "0o755"]


def test_a_database_and_all_beside_it_are_private(tmp_path: Path) -> None:
    """11-S15: the database was readable by every user of the machine. SECURITY P3."""
    home = tmp_path / "home"
    schema.ensure_schema(f"sqlite:///{home / 'llmasos.db'}", home)
    with Database(f"sqlite:///{home / 'llmasos.db'}") as database:
        with database.write() as session:
            session.connection().exec_driver_sql("CREATE TABLE x (y)")
        made = sorted(path.name for path in home.iterdir())
        assert {"llmasos.db", "llmasos.db-gate", "llmasos.db-wal", "llmasos.db-shm"} <= set(made)
        assert {mode(home / name) for name in made} == {"0o600"}
    assert mode(home) == "0o700"
    assert list(loose_access(home)) == []


@pytest.mark.parametrize("command", ["inspect nothing.llmapp", "list", "quota list", "doctor", "secrets list"])
def test_a_first_command_leaves_nothing_open(command: str, tmp_path: Path) -> None:
    """SECURITY P3."""
    home = tmp_path / "home"
    environment = {**os.environ, "LLMASOS_HOME": str(home)}
    words = [str(Path(sys.executable).with_name("llmasos")), *command.split()]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout or done.stderr) and "Traceback" not in done.stderr
    assert [str(each.message) for each in loose_access(home)] == []
    if home.exists():
        assert mode(home) == "0o700"


def test_what_is_loose_is_named_and_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_private_folder(home / "compiled")
    for name in ("llmasos.db", "secret.key", "config.toml"):
        (home / name).touch(0o600)
    assert list(loose_access(home)) == []
    (home / "compiled").chmod(0o777)
    (home / "secret.key").chmod(0o640)
    home.chmod(0o755)
    found = list(loose_access(home))
    assert [each.path.name for each in found] == ["home", "compiled", "secret.key"]
    for each in found:
        each.close()
    assert list(loose_access(home)) == []
    assert mode(home / "secret.key") == "0o600"


def test_compiled_code_that_others_could_have_changed_is_named(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "compiled")
    mine, open_ = tmp_path / "compiled" / "a.cwasm", tmp_path / "compiled" / "b.cwasm"
    mine.touch(0o600)
    open_.touch()
    open_.chmod(0o666)
    assert list(foreign_content(tmp_path)) == [open_]


def test_a_lost_key_is_told_only_where_something_needs_it(database: Database, tmp_path: Path) -> None:
    with database.write() as session:
        assert lost_key(session, tmp_path) is None
        Secrets(tmp_path).set(session, SecretOwner("default", "local"), "token", "value")
        assert lost_key(session, tmp_path) is None
        (tmp_path / "secret.key").unlink()
        assert "so 1 secrets and" in str(lost_key(session, tmp_path))


def test_doctor_closes_what_is_open_and_says_so(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "home")
    (tmp_path / "home").chmod(0o755)
    [(status, message)] = close_access(tmp_path / "home")
    assert (status, mode(tmp_path / "home")) == ("note", "0o700")
    assert "It is closed to them now." in str(message)
    assert list(close_access(tmp_path / "home")) == []
