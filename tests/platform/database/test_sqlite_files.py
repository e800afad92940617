"""The files of a SQLite database, which processes of one home share."""

import subprocess
import sys
from pathlib import Path

from llmasos.database.engine import Database

OPEN_AND_CLOSE = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM a').fetchall(); c.close()"
)


def test_a_second_database_of_a_process_lets_no_other_process_remove_the_log(tmp_path: Path) -> None:
    """10: `serve` lost its log to `llmasos users link` beside it, and every page failed with a disk I/O error."""
    file = tmp_path / "d.db"
    with Database(f"sqlite:///{file}") as database:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE a (b)")
        with database.read() as session:
            session.connection().exec_driver_sql("SELECT b FROM a").all()
            with Database(f"sqlite:///{file}"):
                pass
            subprocess.run([sys.executable, "-c", OPEN_AND_CLOSE, str(file)], check=True, timeout=60)
            assert Path(f"{file}-shm").exists()
            assert Path(f"{file}-wal").exists()
