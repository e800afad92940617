"""What the commands of the store ask on a terminal, and what Ctrl-C leaves behind."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.cli.store_commands import OPTIONAL, Terminal, answer, installed, llmasos, problems

from llmasos.bundles.testing import MODEL_PERMISSION, bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos.database.engine import Database, utc_now


def test_what_an_app_stored_is_only_deleted_by_somebody_who_said_so(released: None, home: Path) -> None:
    from llmasos.capabilities.tables import StoredValue

    assert llmasos("install", "acme/hello", "--yes").exit_code == 0
    database = Database(f"sqlite:///{home / 'llmasos.db'}")
    value = {"workspace_id": "default", "app_id": "acme/hello", "user_id": "local", "key": "k", "value": "v"}
    with database.write() as session:
        session.add(StoredValue(**value, version=1, size_bytes=1, updated_at=utc_now()))
    database.close()
    done = llmasos("uninstall", "acme/hello")
    assert done.exit_code == 1
    assert "--keep-data or --delete-data" in done.stderr
    assert installed() == {"acme/hello": "1.1.0"}
    terminal = Terminal("uninstall", "acme/hello")
    terminal.wait_for("Delete the 1 value ")
    terminal.type("\x03")
    assert terminal.end() == 130, terminal.seen
    assert "Traceback" not in terminal.seen
    assert installed() == {"acme/hello": "1.1.0"}
    assert llmasos("uninstall", "acme/hello", "--delete-data").exit_code == 0


def test_on_a_terminal_the_person_is_asked_and_may_leave_out_what_is_optional(
    home: Path, tmp_path: Path, binary: bytes
) -> None:
    path = tmp_path / "a.llmapp"
    write_bundle(bundle_files(manifest_text(extra=MODEL_PERMISSION + OPTIONAL), binary), path)
    assert llmasos("publish", str(path)).exit_code == 0
    terminal = Terminal("install", "acme/hello")
    terminal.wait_for("Do you agree?")
    assert "Ask language models" in terminal.seen
    terminal.type("y\n")
    terminal.wait_for("allow it too?")
    terminal.type("n\n")
    assert terminal.end() == 0, terminal.seen
    assert [row["capability"] for row in answer("grants", "show")["items"]] == ["model"]


def test_a_setting_of_an_installed_app_is_changed_by_installing_it_again(
    home: Path, tmp_path: Path, binary: bytes
) -> None:
    form = '[config.tone]\ntype = "string"\ndefault = "warm"\ntitle.en = "Tone"\n'
    path = tmp_path / "a.llmapp"
    write_bundle(bundle_files(manifest_text(extra=MODEL_PERMISSION + form), binary), path)
    assert llmasos("publish", str(path)).exit_code == 0
    assert llmasos("install", "acme/hello", "--yes").exit_code == 0
    assert "has your settings" in llmasos("install", "acme/hello", "-c", "tone=curt").stdout
    assert "was installed already" in llmasos("install", "acme/hello", "-c", "tone=curt").stdout
    assert llmasos("install", "acme/hello", "-c", "pitch=low").exit_code == 1
    assert problems() == []


def test_who_says_no_gets_nothing(released: None) -> None:
    terminal = Terminal("install", "acme/hello")
    terminal.wait_for("Do you agree?")
    terminal.type("n\n")
    assert terminal.end() == 3, terminal.seen
    assert installed() == {}


@pytest.mark.parametrize("keys", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_ctrl_c_at_the_prompt_of_an_install_changes_nothing(released: None, keys: str) -> None:
    terminal = Terminal("install", "acme/hello")
    terminal.wait_for("Do you agree?")
    terminal.type(keys)
    assert terminal.end() == 130, terminal.seen
    assert "Traceback" not in terminal.seen
    assert installed() == {}
    assert problems() == []


def test_ctrl_c_at_the_second_question_of_an_install_changes_nothing(home: Path, tmp_path: Path, binary: bytes) -> None:
    path = tmp_path / "a.llmapp"
    write_bundle(bundle_files(manifest_text(extra=MODEL_PERMISSION + OPTIONAL), binary), path)
    assert llmasos("publish", str(path)).exit_code == 0
    terminal = Terminal("install", "acme/hello")
    terminal.wait_for("Do you agree?")
    terminal.type("y\n")
    terminal.wait_for("allow it too?")
    terminal.type("\x03")
    assert terminal.end() == 130, terminal.seen
    assert installed() == {}
    assert problems() == []


def test_ctrl_c_where_a_secret_is_typed_keeps_none(home: Path) -> None:
    terminal = Terminal("secrets", "set", "key")
    terminal.wait_for("Value of key")
    terminal.type("half\x03")
    assert terminal.end() == 130, terminal.seen
    assert "Traceback" not in terminal.seen
    assert answer("secrets", "list")["secrets"] == []
    refused = subprocess.run(
        [sys.executable, "-m", "llmasos_server.cli", "secrets", "set", "key"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "pipe it in" in refused.stderr


def test_ctrl_c_at_the_prompt_of_an_upgrade_leaves_the_old_release_running(released: None) -> None:
    assert llmasos("install", "acme/hello@1.0.0", "--yes").exit_code == 0
    terminal = Terminal("upgrade", "acme/hello")
    terminal.wait_for("Do you agree?")
    assert "[new]" in terminal.seen
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert installed() == {"acme/hello": "1.0.0"}
    assert problems() == []
