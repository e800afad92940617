"""Publishing, installing and all that follows, by the command, on real components in real runners."""

import json
import os
from pathlib import Path

import pytest
from tests.server.cli.store_commands import Terminal, answer, installed, llmasos, problems, publish

from llmasos.bundles import layout
from llmasos.bundles.testing import action, bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema


def test_publishing_says_what_was_checked_and_the_same_again_changes_nothing(
    home: Path, tmp_path: Path, binary: bytes
) -> None:
    path = tmp_path / "a.llmapp"
    write_bundle(bundle_files(component=binary), path)
    first = answer("publish", str(path))
    assert [(check["name"], check["result"]) for check in first["checks"]] == [
        ("bundle", "passed"),
        ("imports", "passed"),
        ("actions", "passed"),
    ]
    assert (first["state"], first["changed"]) == ("available", True)
    assert answer("publish", str(path))["changed"] is False
    write_bundle(bundle_files(manifest_text().replace("Says hello", "Says hallo"), binary), path)
    other = llmasos("publish", str(path), "--json")
    assert (other.exit_code, json.loads(other.stderr)["code"]) == (1, "conflict")


def test_a_bundle_whose_component_describes_something_else_is_refused(
    home: Path, tmp_path: Path, binary: bytes
) -> None:
    path = tmp_path / "a.llmapp"
    files = bundle_files(component=binary)
    files[layout.ACTIONS] = json.dumps([action("other")]).encode()
    write_bundle(files, path)
    done = llmasos("publish", str(path))
    assert done.exit_code == 1
    assert "is not what the app describes (greet)" in done.stderr
    assert done.stderr.rstrip().count("\n") <= 1  # the line of progress, and the error


def test_without_a_terminal_somebody_must_have_said_yes(released: None) -> None:
    done = llmasos("install", "acme/hello@1.0.0")
    assert done.exit_code == 3
    assert "--yes" in done.stderr
    assert "Ask language models" in done.stderr
    assert installed() == {}


def test_from_install_to_uninstall(released: None) -> None:
    assert answer("install", "acme/hello@1.0.0", "--yes")["items"] == [
        {"app": "acme/hello", "version": "1.0.0", "outcome": "installed"}
    ]
    assert answer("install", "acme/hello", "--yes")["items"][0]["outcome"] == "already"
    # The upgrade asks for more and nobody can be asked: it waits, and the old release runs.
    waiting = llmasos("upgrade", "--json")
    assert waiting.exit_code == 3
    assert json.loads(waiting.stdout)["items"] == [{"app": "acme/hello", "version": "1.1.0", "outcome": "waiting"}]
    assert answer("list")["items"][0]["waiting"] == "1.1.0"
    assert installed() == {"acme/hello": "1.0.0"}
    assert answer("upgrade", "acme/hello", "--yes")["items"][0]["outcome"] == "upgraded"
    assert {row["capability"] for row in answer("grants", "show", "acme/hello")["items"]} == {"model", "storage"}
    assert answer("grants", "revoke", "acme/hello", "storage")["revoked"]
    revoked = {row["capability"]: row["revoked_at"] is not None for row in answer("grants", "show")["items"]}
    assert revoked == {"model": False, "storage": True}
    assert answer("rollback", "acme/hello")["items"][0]["version"] == "1.0.0"
    assert installed() == {"acme/hello": "1.0.0"}
    assert problems() == []
    assert answer("uninstall", "acme/hello")["items"][0]["outcome"] == "uninstalled"
    assert installed() == {}
    assert problems() == []


def test_a_yanked_release_is_not_picked_and_can_still_be_named_by_nobody_new(released: None) -> None:
    assert answer("yank", "acme/hello@1.1.0", "--reason", "wrong")["changed"]
    assert not answer("yank", "acme/hello@1.1.0")["changed"]
    assert answer("install", "acme/hello", "--yes")["items"][0]["version"] == "1.0.0"
    assert "yanked (wrong)" in llmasos("show", "acme/hello").stdout
    assert answer("unyank", "acme/hello@1.1.0")["state"] == "available"
    assert llmasos("yank", "acme/hello").exit_code == 1
    assert llmasos("yank", "acme/hello@9").exit_code == 5


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["install", "no/such", "--yes"], 5),
        (["install", "not a name", "--yes"], 1),
        (["install", "acme/hello>=7", "--yes"], 1),
        (["install", "acme/hello", "--yes", "--config", "tone"], 1),
        (["install", "acme/hello", "--yes", "--config", "tone=1"], 1),
        (["install", "acme/hello", "--yes", "--decline", "model"], 1),
        (["install", "acme/hello", "--yes", "--decline", "http"], 1),
        (["upgrade", "acme/hello"], 5),
        (["rollback", "acme/hello"], 5),
        (["uninstall", "acme/hello"], 5),
        (["grants", "show", "acme/hello"], 5),
        (["grants", "revoke", "acme/hello", "model"], 5),
        (["publish", "absent.llmapp"], 5),
    ],
)
def test_each_mistake_is_one_clear_line_and_changes_nothing(released: None, words: list[str], code: int) -> None:
    done = llmasos(*words, "--json")
    assert done.exit_code == code, done.stderr
    assert json.loads(done.stderr)["detail"]
    assert installed() == {}


def test_a_home_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMASOS_HOME", str(tmp_path / "file" / "home"))
    for words in (["install", "a/b", "--yes"], ["migrate"], ["publish", "x.llmapp"], ["yank", "a/b@1"]):
        done = llmasos(*words)
        assert done.exit_code == 1
        assert "LLMASOS_HOME" in done.stderr
        assert done.stderr.count("\n") == 1


def test_doctor_names_what_is_wrong_and_ends_with_1(released: None, home: Path) -> None:
    assert llmasos("install", "acme/hello", "--yes").exit_code == 0
    bundle = next((home / "bundles").glob("*.llmapp"))
    bundle.write_bytes(bundle.read_bytes()[:-1])
    database = Database(f"sqlite:///{home / 'llmasos.db'}")
    with database.write() as session:
        connection = session.connection()
        connection.exec_driver_sql("DROP TRIGGER audit_entry_no_update")
        connection.exec_driver_sql("UPDATE audit_entry SET outcome = 'denied' WHERE seq = 1")
    database.close()
    for path in (home / "code").rglob("*.wasm"):
        path.write_bytes(b"other")
    done = llmasos("doctor")
    assert done.exit_code == 1
    assert {problem["part"] for problem in problems()} == {"audit", "bundles", "installs"}
    assert "publish it again" in done.stdout


def test_doctor_names_bubblewrap_among_the_mechanisms_or_says_how_to_get_it(home: Path, monkeypatch) -> None:
    monkeypatch.setenv("LLMASOS_BUBBLEWRAP", "on")
    checks = json.loads(llmasos("doctor", "--json").stdout)["checks"]
    (runners,) = [check for check in checks if check["part"] == "runners"]
    assert "bubblewrap" in runners["detail"]
    if runners["status"] != "ok":
        assert "Install bubblewrap" in runners["detail"]
    monkeypatch.setenv("PATH", str(home))
    (problem,) = [problem for problem in problems() if problem["part"] == "runners"]
    assert "`bwrap` is not found" in problem["detail"]


def test_doctor_finds_a_damaged_database(home: Path) -> None:
    ensure_schema(f"sqlite:///{home / 'llmasos.db'}", home)
    file = home / "llmasos.db"
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 4] = os.urandom(4096)
    file.write_bytes(content)
    for part in home.glob("llmasos.db-*"):
        part.unlink()
    assert llmasos("doctor").exit_code == 1
    assert problems()[0]["part"] in ("integrity", "database")


def setting(default: str = "", choices: str = '["kind", "curt"]') -> str:
    return f'[config.tone]\ntype = "string"\nenum = {choices}\ntitle.en = "Tone"\n{default}'


def test_an_upgrade_of_all_goes_on_past_an_app_that_needs_a_setting(home: Path, tmp_path: Path, binary: bytes) -> None:
    """11-22: the first app that needed a new setting stopped it, and later ones stayed old without a word."""
    for app_id in ("acme/alpha", "acme/bravo", "acme/gamma"):
        publish(tmp_path, binary, app_id, "1.0.0")
        answer("install", app_id, "--yes")
    publish(tmp_path, binary, "acme/alpha", "2.0.0", setting())
    publish(tmp_path, binary, "acme/bravo", "2.0.0")
    done = llmasos("upgrade", "--yes", "--json")
    assert done.exit_code == 1
    alpha, bravo = sorted(json.loads(done.stdout)["items"], key=lambda item: item["app"])
    assert (alpha["outcome"], bravo["outcome"]) == ("failed", "upgraded")
    assert "tone" in alpha["problem"]["detail"]
    assert installed() == {"acme/alpha": "1.0.0", "acme/bravo": "2.0.0", "acme/gamma": "1.0.0"}
    again = llmasos("upgrade", "--yes")
    assert again.exit_code == 1
    assert "acme/alpha was not upgraded" in again.stderr
    assert again.stdout == ""
    assert answer("upgrade", "acme/alpha", "--yes", "-c", "tone=kind")["items"][0]["outcome"] == "upgraded"
    unchanged = llmasos("upgrade")
    assert "newest release" in unchanged.stdout
    assert unchanged.stderr == ""
    assert answer("upgrade") == {"items": []}


def test_an_upgrade_says_which_settings_it_reset(home: Path, tmp_path: Path, binary: bytes) -> None:
    """11-22: a chosen setting whose choices changed got the default without a word."""
    publish(tmp_path, binary, "acme/hello", "1.0.0", setting('default = "kind"'))
    answer("install", "acme/hello", "--yes", "-c", "tone=curt")
    publish(tmp_path, binary, "acme/hello", "1.1.0", setting('default = "kind"', '["kind", "curt", "dry"]'))
    assert "reset_settings" not in answer("upgrade")["items"][0]
    publish(tmp_path, binary, "acme/hello", "2.0.0", setting('default = "kind"', '["kind", "dry"]'))
    assert answer("upgrade")["items"][0]["reset_settings"] == ["tone"]
    answer("rollback", "acme/hello")
    done = llmasos("upgrade")
    assert done.exit_code == 0
    assert "does not take your choice of tone" in done.stderr
    answer("rollback", "acme/hello")
    assert "reset_settings" not in answer("upgrade", "acme/hello", "-c", "tone=dry")["items"][0]


def test_an_upgrade_that_waits_for_consent_exits_3_and_names_the_app(released: None) -> None:
    """11-40."""
    answer("install", "acme/hello@1.0.0", "--yes")
    done = llmasos("upgrade")
    assert done.exit_code == 3
    assert "acme/hello 1.1.0 asks for more and waits for your consent: llmasos upgrade acme/hello" in done.stdout


@pytest.mark.parametrize(
    "command", [["install", "acme/hello@9", "--yes"], ["show", "acme/hello@9"], ["yank", "acme/hello@9"]]
)
def test_a_version_that_does_not_exist_is_refused_with_those_that_do(released: None, command: list[str]) -> None:
    """11-40."""
    done = llmasos(*command)
    assert done.exit_code == 5
    assert "has no release 9; it has 1.1.0, 1.0.0" in done.stderr


def test_a_revoked_permission_comes_with_the_way_to_give_it_back(released: None) -> None:
    """11-36."""
    answer("install", "acme/hello@1.0.0", "--yes")
    assert "llmasos install acme/hello" in llmasos("grants", "revoke", "acme/hello", "model").stdout
    assert answer("install", "acme/hello", "--yes")["items"][0]["outcome"] == "granted"


SECRET = (
    '[[permissions]]\ncapability = "http"\nhosts = ["https://api.example.com"]\nreason.en = "Asks."\n'
    '[[permissions]]\ncapability = "secrets"\nreason.en = "Signs in."\n'
    'secrets = [{name = "api_key", host = "https://api.example.com", header = "authorization"}]\n'
)


def test_an_install_asks_for_the_secrets_that_the_app_needs(home: Path, tmp_path: Path, binary: bytes) -> None:
    """11-36: an app was installed, and failed at its first call for want of a key that nobody had asked for."""
    publish(tmp_path, binary, "acme/keyed", "1.0.0", SECRET)
    done = llmasos("install", "acme/keyed", "--yes")
    assert done.exit_code == 0
    assert "llmasos secrets set api_key --app acme/keyed" in done.stderr
    terminal = Terminal("install", "acme/keyed")
    terminal.wait_for("Its value (Enter: later):")
    terminal.type("s3cret-value\n")
    assert terminal.end() == 0
    assert "s3cret-value" not in terminal.seen
    assert answer("secrets", "list")["secrets"] == [{"name": "api_key", "app": "acme/keyed"}]
    assert "secrets set" not in llmasos("install", "acme/keyed").stderr


def test_a_dry_run_shows_what_would_be_asked_and_changes_nothing(released: None) -> None:
    [step] = answer("install", "acme/hello@1.0.0", "--dry-run")["items"]
    assert (step["change"], step["version"], step["from_version"]) == ("install", "1.0.0", None)
    assert [(each["capability"], each["status"]) for each in step["consent"]["permissions"]] == [("model", "asked")]
    assert "Ask language models" in step["consent"]["permissions"][0]["text"]
    assert [risk["code"] for risk in step["consent"]["risks"]] == ["unlimited-tokens"]
    assert installed() == {}
    answer("install", "acme/hello@1.0.0", "--yes")
    [step] = answer("upgrade", "--dry-run")["items"]
    assert (step["change"], step["from_version"], step["consent"]["needed"]) == ("upgrade", "1.0.0", True)
    statuses = {each["capability"]: each["status"] for each in step["consent"]["permissions"]}
    assert statuses == {"model": "same", "storage": "new"}
    shown = llmasos("upgrade", "--dry-run")
    assert "upgrade acme/hello 1.1.0" in shown.stdout
    assert "[new] Keep up to" in shown.stderr
    assert answer("list")["items"][0]["waiting"] is None
    assert installed() == {"acme/hello": "1.0.0"}
    assert "Nothing would change" in llmasos("install", "acme/hello", "--dry-run").stdout
