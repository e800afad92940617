"""11-S1: what apps, models and publishers wrote is shown, and obeyed by no terminal."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from upstream import Whole, serving
from upstream import answer as answer_of_model

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
    assert not any(line.removeprefix("│ ").startswith("Within: nothing") for line in shown.splitlines())
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


def spoil(home: Path) -> int:
    """Write the spoof into every text of the app that the home stores, as a release from before the check had it."""
    changed = 0
    with closing(sqlite3.connect(home / "llmasos.db")) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for values in database.execute(f"SELECT * FROM {table}").fetchall():
                columns = [each[1] for each in database.execute(f"PRAGMA table_info({table})")]
                for column, value in zip(columns, values, strict=True):
                    if not isinstance(value, str) or not any(own in value for own in OWN_TEXTS):
                        continue
                    spoof = json.dumps(SPOOF + NEW_LINES)[1:-1] if value[0] in "{[" else SPOOF + NEW_LINES
                    spoofed = value
                    for own in OWN_TEXTS:
                        spoofed = spoofed.replace(own, own + spoof)
                    database.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (spoofed, value))
                    changed += 1
        database.commit()
    return changed


OWN_TEXTS = ("Says hello.", "Greet somebody.", "Answers you.", "Apache-2.0")
SCREENS = [
    ("search",),
    ("search", "hello"),
    ("show", "acme/hello"),
    ("show", "acme/hello@1.1.0"),
    ("install", "acme/hello==1.1.0", "--yes"),
    ("upgrade",),
    ("upgrade", "--yes"),
    ("rollback", "acme/hello", "--yes"),
    ("list",),
    ("grants", "show", "acme/hello"),
    ("run", "acme/hello", "--help"),
    ("run", "acme/hello", "greet", "--help"),
    ("run", "acme/hello", "greet", "-p", f"name={SPOOF}"),
    ("run", "acme/hello", "greet", "-p", f"{SPOOF}=1"),
    ("invocations",),
    ("logs",),
    ("usage",),
    ("audit",),
    ("quota", "list"),
    ("gc",),
    ("uninstall", "acme/hello", "--yes"),
]


@pytest.mark.usefixtures("released")
@pytest.mark.parametrize("locale", ["en", "zh"])
def test_no_screen_obeys_what_a_stored_release_says(
    home: Path, llmasos: Callable[..., Result], locale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11-S1, its kind: each command that shows an app, with the spoof in each of the app's stored texts."""
    assert llmasos("install", "acme/hello==1.0.0", "--yes").exit_code == 0
    assert spoil(home) > 3
    monkeypatch.setenv("LLMASOS_LOCALE", locale)
    shown = 0
    for words in SCREENS:
        for json_or_not in ((), ("--json",)):
            done = llmasos(*words, *json_or_not)
            assert is_safe(done.stdout + done.stderr), words
            assert done.exception is None or isinstance(done.exception, SystemExit), words
            assert not any(
                line.removeprefix("│ ").startswith("Within: nothing") for line in done.stdout.splitlines()
            ), words
            shown += "harmless" in done.stdout + done.stderr
    assert shown > 5  # the spoof reached screens, and was neutralised there


@pytest.mark.parametrize(
    "words",
    [
        ("search", SPOOF),
        ("show", f"acme/{SPOOF}"),
        ("install", f"acme/hello@{SPOOF}"),
        ("run", SPOOF, SPOOF),
        ("logs", SPOOF),
        ("new", SPOOF),
        ("check", SPOOF),
        ("inspect", SPOOF),
        ("models", "add", SPOOF, SPOOF),
        ("models", "add", "m", "openai/x", "--api-base", f"http://{SPOOF}"),
        ("secrets", "set", SPOOF),
        ("tokens", "revoke", SPOOF),
        ("users", "invite", SPOOF),
        ("restore", SPOOF),
        ("serve", "--port", SPOOF),
        (SPOOF,),
        (f"--{SPOOF}",),
    ],
    ids=lambda words: " ".join(words[:2])[:12].encode("ascii", "ignore").decode().strip("\x1b\r"),
)
def test_a_word_of_the_command_line_is_shown_and_not_obeyed(llmasos: Callable[..., Result], words: tuple[str]) -> None:
    """11-S1, its kind: a word may come from a page that somebody copies it from."""
    done = llmasos(*words)
    assert is_safe(done.stdout + done.stderr)
    assert "--debug" not in done.stderr


def test_a_provider_s_words_are_shown_and_not_obeyed(llmasos: Callable[..., Result]) -> None:
    """11-S1, its kind: in errors, and in answers of a model."""
    with serving() as upstream:
        assert llmasos("models", "add", "m", "openai/x", "--api-base", upstream.base).exit_code == 0
        for reply in (
            Whole({"error": {"message": SPOOF, "code": SPOOF, "type": SPOOF}}, 400),
            Whole({"error": {"message": SPOOF}}, 503),
            Whole(f"<html>{SPOOF}</html>".encode("utf-8", "replace"), 502),
            answer_of_model({"content": SPOOF}),
            answer_of_model({"content": None, "refusal": SPOOF}),
            answer_of_model({"content": None, "tool_calls": [{"id": SPOOF, "function": {"name": SPOOF}}]}),
        ):
            upstream.say(reply)
            done = llmasos("models", "test", "m")
            assert is_safe(done.stdout + done.stderr), reply
            assert done.exception is None or isinstance(done.exception, SystemExit), reply


@pytest.mark.parametrize("host", ["", "a b", "a..b", SPOOF])
def test_a_server_listens_on_no_host_that_has_no_name(llmasos: Callable[..., Result], host: str) -> None:
    """11-S1, its kind: a raw TypeError; and the empty name, which meant every address of the machine."""
    done = llmasos("serve", "--port", "0", "--host", host)
    assert done.exit_code == 1
    assert is_safe(done.stderr)
    assert "no host has this name. Give an address of this machine with --host." in done.stderr
