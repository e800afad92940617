"""Publishing, installing and all that follows, by the command, on real components in real runners."""

import errno
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from tests.server.cli.components import minimal_component
from typer.testing import CliRunner, Result

from llmasos.bundles import layout
from llmasos.bundles.testing import MODEL_PERMISSION, action, bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos.database.engine import Database, utc_now
from llmasos.database.schema import ensure_schema
from llmasos_server.cli.shell import app

STORAGE = '[[permissions]]\ncapability = "storage"\nreason.en = "Remembers you."\n'
OPTIONAL = '[[permissions]]\ncapability = "storage"\noptional = true\nreason.en = "Remembers you."\n'


@pytest.fixture(scope="module")
def binary() -> bytes:
    return minimal_component(json.dumps([action()]))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMASOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    for name in ("LLMASOS_DATABASE_URL", "LLMASOS_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, binary: bytes) -> Path:
    """A home in which 1.0.0 asks for a model, and 1.1.0 for storage too."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMASOS_HOME", str(folder / "home"))
        for version, extra in (("1.0.0", MODEL_PERMISSION), ("1.1.0", MODEL_PERMISSION + STORAGE)):
            path = folder / f"{version}.llmapp"
            write_bundle(bundle_files(manifest_text(version=version, extra=extra), binary), path)
            done = llmasos("publish", str(path))
            assert done.exit_code == 0, done.stderr
    return folder / "home"


@pytest.fixture
def released(home: Path, template: Path) -> None:
    shutil.copytree(template, home)


def llmasos(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def answer(*words: str) -> Any:
    done = llmasos(*words, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def installed() -> dict[str, str]:
    return {row["app"]: row["version"] for row in answer("list")["items"]}


def problems() -> list[dict[str, str]]:
    checks = json.loads(llmasos("doctor", "--json").stdout)["checks"]
    return [check for check in checks if check["status"] == "problem"]


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
    terminal.wait_for("Delete the 1 values")
    terminal.type("\x03")
    assert terminal.end() == 130, terminal.seen
    assert "Traceback" not in terminal.seen
    assert installed() == {"acme/hello": "1.1.0"}
    assert llmasos("uninstall", "acme/hello", "--delete-data").exit_code == 0


def take_the_terminal() -> None:
    """Make the terminal the one that Ctrl-C comes from."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a suite in the background would have it ignored
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.parent, child = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmasos_server.cli", *words],
            stdin=child,
            stdout=child,
            stderr=child,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "100"},
            preexec_fn=take_the_terminal,  # noqa: PLW1509  (no thread runs in the child yet)
        )
        os.close(child)
        self.seen = ""

    def wait_for(self, text: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            if not self._read():
                break
        assert text in self.seen, self.seen

    def _read(self) -> bool:
        assert select.select([self.parent], [], [], 60)[0], f"it says no more after: {self.seen}"
        try:
            part = os.read(self.parent, 4096)
        except OSError as error:
            assert error.errno == errno.EIO  # the other side is closed
            return False
        self.seen += part.decode(errors="replace")
        return bool(part)

    def type(self, keys: str) -> None:
        os.write(self.parent, keys.encode())

    def end(self) -> int:
        while self._read():
            pass
        os.close(self.parent)
        return self.process.wait(60)


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


def publish(folder: Path, binary: bytes, app_id: str, version: str, extra: str = "") -> None:
    path = folder / f"{app_id.replace('/', '-')}-{version}.llmapp"
    write_bundle(bundle_files(manifest_text(app_id, version, extra), binary), path)
    answer("publish", str(path))


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
