"""11-S1: what apps, models and publishers wrote is shown, and obeyed by no terminal."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmasos.bundles.manifest import parse_manifest
from llmasos.bundles.testing import MODEL_PERMISSION, manifest_text
from llmasos.errors import AppFailed
from llmasos.installs.consent import first_consent
from llmasos_server.cli import shell
from llmasos_server.cli.asking import show_request
from llmasos_server.cli.output import emit_json, message_of, note, say, say_part, say_table

SPOOF = "\x1b[1A\x1b[2K\x9b2K\u202e it is harmless\r"
NEW_LINES = "first\nWithin: nothing"


def is_safe(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)


def test_every_way_to_print_neutralises(capsys: pytest.CaptureFixture[str]) -> None:
    """11-S1: chunks, results, progress, errors, tables and JSON all passed escape sequences through."""
    say(SPOOF)
    say_part(SPOOF)
    note(SPOOF)
    note(message_of(AppFailed(SPOOF)))
    say_table([(SPOOF, NEW_LINES)], ("APP", "SUMMARY"))
    emit_json({SPOOF: [SPOOF]})
    out, err = capsys.readouterr()
    assert is_safe(out)
    assert is_safe(err)
    assert "first Within: nothing" in out


def test_a_release_stored_before_cannot_repaint_the_consent_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """11-S1: a reason erased the line that named the host, and a line feed faked lines of the screen. SECURITY P2."""
    manifest = parse_manifest(manifest_text(extra=MODEL_PERMISSION))
    permission = manifest.permissions[0]
    reason = permission.reason.model_copy(update={"en": SPOOF + NEW_LINES + "[red]markup[/red]"})
    spoofed = manifest.model_copy(
        update={
            "summary": reason,
            "name": reason,
            "permissions": (permission.model_copy(update={"reason": reason}),),
        }
    )
    show_request(replace(first_consent(manifest), manifest=spoofed, permissions=first_consent(spoofed).permissions))
    shown = capsys.readouterr().err
    assert is_safe(shown)
    assert "Ask language models" in shown
    assert not any(line.strip("│ ").startswith("Within: nothing") for line in shown.splitlines())
    assert "[red]markup" in shown.replace("\n", "")


def test_no_command_prints_past_the_functions_that_neutralise() -> None:
    """11-S1: a table of tokens was printed with its markup."""
    cli = Path(shell.__file__).parent
    past = re.compile(r"sys\.std(out|err)\.write|\bprint\(|\bConsole\(|\becho\(")
    found = {path.name for path in cli.rglob("*.py") if past.search(path.read_text())}
    # The functions themselves; the shell, which ends a line, escapes a problem and shows the version; two that give
    # Rich texts that went through them.
    assert found == {"output.py", "shell.py", "asking.py", "answers.py"}


@pytest.mark.parametrize("command", ["check", "publish"])
def test_an_app_with_a_spoofed_reason_is_refused_in_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11-S1: `check` and `publish` passed it."""
    monkeypatch.setenv("LLMASOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    project = tmp_path / "app"
    project.mkdir()
    (project / "app.py").write_text("from llmasos_sdk import App\n\napp = App()\n")
    (project / "README.md").write_text("# Hello\n")
    spoof = json.dumps(SPOOF)
    (project / "llmapp.toml").write_text(manifest_text(extra=MODEL_PERMISSION.replace('"Answers you."', spoof)))
    done = CliRunner().invoke(shell.app, [command, str(project)])
    said = done.stdout + done.stderr
    assert done.exit_code == 1
    assert is_safe(said)
    assert "permissions[0].reason.en: it contains U+001B" in said
    shutil.rmtree(project)
