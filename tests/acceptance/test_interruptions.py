"""A command that is interrupted leaves nothing half-done and nothing reserved."""

import contextlib
import os
import pty
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# The first test includes the quickstart, which may take ten minutes on a busy machine.
pytestmark = [pytest.mark.model, pytest.mark.timeout(1800)]

STORY = ("run", "llmasos/storyteller", "tell", "-p", "premise=a lighthouse", "--stream")


def rows(home: Path, query: str) -> list[Any]:
    with sqlite3.connect(home / "llmasos.db") as database:
        return database.execute(query).fetchall()


def statuses(home: Path) -> list[str]:
    return [status for (status,) in rows(home, "select status from invocation order by started_at")]


def stuck(home: Path) -> list[Any]:
    """The remaining reservations of ended invocations, and the invocations that never ended."""
    return [
        *rows(home, "select * from reservation"),
        *rows(home, "select * from ledger_window where reserved != 0"),
        *rows(home, "select id from invocation where status = 'running'"),
    ]


def telling(user: Any) -> subprocess.Popen[str]:
    """Start a story, and return once its first words are printed."""
    process = user.start(*STORY)
    if not process.stdout.read(20):
        raise AssertionError(process.communicate()[1])
    return process


def children_of(pid: int) -> Iterator[int]:
    listed: list[str] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a child may end in the meantime
        for task in Path(f"/proc/{pid}/task").iterdir():
            listed += (task / "children").read_text().split()
    for child in listed:
        yield int(child)
        yield from children_of(int(child))


def test_ctrl_c_during_a_story_cancels_and_settles_it(user) -> None:
    process = telling(user)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert statuses(user.home)[-1] == "cancelled"
    assert stuck(user.home) == []


def test_a_run_that_was_killed_holds_nothing_after_the_next_command(user) -> None:
    process = telling(user)
    process.kill()
    process.communicate(timeout=60)
    user.does("run", "llmasos/triage", "classify", "-p", "message=Where is my parcel?")
    assert stuck(user.home) == []
    assert statuses(user.home)[-2] != "running"


def test_a_runner_that_was_killed_is_one_clear_error(user) -> None:
    process = telling(user)
    for child in children_of(process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"llmasos_runner" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "Error: The app's runner died: signal SIGKILL."
    assert stuck(user.home) == []


def test_without_a_terminal_an_install_asks_for_yes(user) -> None:
    refused = user.does("install", "llmasos/tutor", code=3)
    assert "--yes" in refused.stderr.splitlines()[-1]
    assert "llmasos/tutor" not in user.does("list").stdout


def test_ctrl_c_at_the_consent_question_installs_nothing(user) -> None:
    ours, theirs = pty.openpty()
    process = user.start("install", "llmasos/tutor", stdin=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while b"[y/N]" not in shown and time.monotonic() < deadline:
        shown += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    process.stdout.close()
    os.close(ours)
    assert "llmasos/tutor" not in user.does("list").stdout
    assert rows(user.home, "select * from installation where app_id = 'llmasos/tutor'") == []
