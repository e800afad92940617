"""A restore that is killed leaves the old home or the new one."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlmodel import col, select
from tests.platform.backup.homes import OWNER, PASSPHRASE, Home, empty_home

from llmasos.backup import sealing
from llmasos.backup.restore import finish_restore
from llmasos.database.engine import Database
from llmasos.database.schema import PENDING_RESTORE, ensure_schema
from llmasos.errors import LlmasosError, Unavailable
from llmasos.kernel.tables import AuditEntry
from llmasos.secrets import Secrets

# Kill -9.

# Restores into copies of a home, one process for each: the n-th is killed before its n-th change of the disk.
KILL_AT_EACH_STEP = """
import os, shutil, signal, sys
from pathlib import Path
from llmasos.backup import restore, sealing
sealing._COST = int(sys.argv[4])
backup, home, passphrase = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
steps_left = 0

def counted(owner, name):
    original = getattr(owner, name)
    def wrapped(*args, **kwargs):
        global steps_left
        steps_left -= 1
        if steps_left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, wrapped)

for owner, name in ((Path, "rename"), (Path, "replace"), (os, "fsync")):
    counted(owner, name)
for step in range(100):
    copy = home.with_name(f"killed{step:02}")
    shutil.copytree(home, copy)
    child = os.fork()
    if child == 0:
        steps_left = step
        restore.restore_backup(backup, copy, f"sqlite:///{copy / 'llmasos.db'}", passphrase, replace=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_killed_at_any_step_the_home_is_the_old_or_the_new_one(backup: Path, sqlite_home: Home, tmp_path: Path) -> None:
    new = sqlite_home.contents()
    with Database(sqlite_home.url) as database, database.write() as session:
        Secrets(sqlite_home.folder).set(session, OWNER, "api_key", "older")
    old = sqlite_home.contents()
    words = [
        sys.executable,
        "-c",
        KILL_AT_EACH_STEP,
        str(backup),
        str(sqlite_home.folder),
        PASSPHRASE,
        str(sealing._COST),
    ]
    subprocess.run(words, check=True)
    killed = [Home(path, f"sqlite:///{path / 'llmasos.db'}") for path in sorted(tmp_path.glob("killed*"))]
    committed = []
    for home in killed:
        pending = (home.folder / PENDING_RESTORE).is_dir()
        if pending:
            with pytest.raises(Unavailable, match="next command finishes it"):
                ensure_schema(home.url, home.folder)
            assert finish_restore(home.folder, home.url)
        found = home.contents()
        assert found in (old, new), home.folder
        committed.append(found == new)
    assert committed == sorted(committed), "a restore that was committed stays so"
    assert committed.count(False) > 5
    assert committed.count(True) > 5


def test_killed_between_rows_a_postgresql_database_is_the_old_one_until_the_restore_is_finished(
    backup: Path, sqlite_home: Home, home: Home, tmp_path: Path
) -> None:
    with Database(home.url) as database, database.write() as session:
        Secrets(home.folder).set(session, OWNER, "api_key", "older")
    old = home.contents()["secret"], home.contents()["audit"]
    script = """
import os, signal, sys
from pathlib import Path
from llmasos.backup import restore, sealing
sealing._COST = int(sys.argv[5])
restore._without_triggers = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
restore.shutil.copyfileobj = restore._without_triggers
restore.restore_backup(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], replace=True)
"""
    words = [sys.executable, "-c", script, str(backup), str(home.folder), home.url, PASSPHRASE, str(sealing._COST)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    with Database(home.url) as database, database.read() as session:
        entries = session.exec(select(AuditEntry).order_by(col(AuditEntry.hash))).all()
    assert [entry.hash for entry in entries] == old[1]
    assert finish_restore(home.folder, home.url)
    assert home.contents()["audit"] == sqlite_home.contents()["audit"]
    assert home.contents()["secret"] == "open sesame"


def test_an_interrupted_restore_waits_for_the_database_that_it_was_for(
    tmp_path: Path,
) -> None:
    new = empty_home(tmp_path)
    (new.folder / PENDING_RESTORE).mkdir()
    (new.folder / PENDING_RESTORE / "target.json").write_text(json.dumps({"database": "another"}))
    with pytest.raises(LlmasosError, match="into another database"):
        finish_restore(new.folder, new.url)
