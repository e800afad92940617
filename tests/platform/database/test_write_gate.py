"""The write gate of a SQLite database."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmasos.database import write_gate
from llmasos.database.engine import Database

HOLDER = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_SH); print('held', flush=True); input()"


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path):
    copy = tmp_path / "llmasos.db"
    copy.write_bytes(sqlite_template.read_bytes())
    with Database(f"sqlite:///{copy}") as database:
        database.write_queue.submit(lambda it: None).result()
        yield database


def test_a_writer_that_waits_for_long_names_the_holder(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """11-S15: a shared lock on the gate froze every writer silently."""
    monkeypatch.setattr(write_gate, "BLOCKED_SECONDS", 0.2)
    path = f"{database.url.removeprefix('sqlite:///')}-gate"
    command = [sys.executable, "-c", HOLDER, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        pending = database.write_queue.submit(lambda it: None)
        give_up = time.monotonic() + 20
        while not caplog.records and time.monotonic() < give_up:
            time.sleep(0.02)
        assert not pending.done
        [record] = caplog.records
        for part in (f"process {holder.pid} (", "LOCK_SH", path, f"kill {holder.pid}"):
            assert part in record.getMessage()
        time.sleep(0.5)
        assert len(caplog.records) == 1, "once for each wait"
        holder.communicate("\n")
    assert pending.result(10) is None


def test_a_lock_whose_holder_is_unknown_is_reported_as_well(tmp_path: Path) -> None:
    gate = tmp_path / "x-gate"
    gate.touch()
    assert write_gate.holder_of(gate) is None
    assert "fuser" in str(write_gate.blocked(gate))
    assert write_gate.holder_of(tmp_path / "missing") is None
    with gate.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert (write_gate.holder_of(gate) or (0,))[0] == os.getpid()
