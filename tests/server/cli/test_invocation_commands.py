"""11-31: the commands `invocations` and `logs`, here and on a running server."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from llmasos.bundles.testing import manifest_text
from llmasos.database.engine import Database, utc_now
from llmasos.database.schema import ensure_schema
from llmasos.i18n import _, to_text
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel.invocation import Principal
from llmasos.runtimes.confinement import confinement
from llmasos.settings import Settings
from llmasos_server.accounts.tokens import create_token
from llmasos_server.cli import invocations
from llmasos_server.server import Server, create_app, listen

FAILED, SAID, RUNNING = "f" * 32, "5" * 32, "7" * 32


def row(id_: str, minutes_ago: int, **fields: object) -> InvocationRow:
    started = utc_now() - timedelta(minutes=minutes_ago)
    ended = None if fields.get("status") == "running" else started + timedelta(seconds=2)
    known = {"workspace_id": "default", "user_id": "local", "version": "1.0.0", "lease_id": "l", "action": "say"}
    return InvocationRow(
        **{**known, "id": id_, "started_at": started, "ended_at": ended, "duration_ms": 2000, **fields}
    )


@pytest.fixture
def history(home: Path) -> Database:
    """A home in which one invocation succeeded, then one of another app failed, and one runs."""
    settings = Settings()
    ensure_schema(settings.resolved_database_url, home)
    with Database(settings.resolved_database_url) as database:
        why = to_text(_("The component did not pass: {reason}", reason="\x1b[31mempty"))
        told = {"error_code": "app-failed", "error_message": why}
        log = "told\nffffffffffff  2026-01-01 00:00:00  acme/fake  succeeded\n\x1b[2J"
        with database.write() as session:
            session.add(row(SAID, 3, status="succeeded", app_id="acme/tool", log=log, prompt_tokens=1200))
            session.add(row(FAILED, 2, status="failed", app_id="acme/other", log="Traceback: app.py, line 3", **told))
            session.add(row(RUNNING, 1, status="running", app_id="acme/tool"))
        yield database


def test_what_ran_is_listed_the_newest_first(history: Database, llmasos, answer) -> None:
    listed = llmasos("invocations").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["ID", "777777777777", "ffffffffffff", "555555555555"]
    assert "app-failed" in listed[2]
    assert "2.0" in listed[3]
    assert "1,200" in listed[3]
    items = answer("invocations", "acme/tool")["items"]
    assert [(item["id"], item["status"]) for item in items] == [(RUNNING, "running"), (SAID, "succeeded")]
    assert "log" not in items[0]
    assert len(answer("invocations", "--limit", "1")["items"]) == 1


def test_nothing_ran_in_a_new_home(llmasos) -> None:
    assert llmasos("invocations").stdout == "Nothing ran yet.\n"
    assert llmasos("logs").stderr == "Nothing ran yet.\n"


def test_a_log_has_what_the_app_printed_and_why_it_failed(history: Database, llmasos) -> None:
    shown = llmasos("logs", "ffff").stdout.splitlines()
    assert shown[0].startswith("ffffffffffff  ")
    assert shown[0].endswith("acme/other say  failed  2.0 s")
    assert shown[1:] == [
        "  Traceback: app.py, line 3",
        r"  Error (app-failed): The component did not pass: \x1b[31mempty",
    ]
    assert "错误（app-failed）：组件未通过检查：" in llmasos("logs", "ffff", LLMASOS_LOCALE="zh").stdout


def test_an_app_can_print_no_line_of_another_invocation_and_no_escape_sequence(history: Database, llmasos) -> None:
    shown = llmasos("logs", "acme/tool").stdout
    assert [line for line in shown.splitlines() if not line.startswith("  ")] == [shown.splitlines()[0]]
    assert "\x1b" not in shown


def test_logs_are_shown_the_newest_last_and_without_what_still_runs(history: Database, llmasos) -> None:
    heads = [line.split()[0] for line in llmasos("logs").stdout.splitlines() if not line.startswith("  ")]
    assert heads == ["555555555555", "ffffffffffff"]


@pytest.mark.parametrize(
    ("start", "said"), [("0000", "There is no invocation 0000"), ("%", "There is no invocation %")]
)
def test_an_unknown_invocation_is_one_line_and_exit_code_5(history: Database, llmasos, start: str, said: str) -> None:
    done = llmasos("logs", start)
    assert done.exit_code == 5
    assert said in done.stderr


def test_an_ambiguous_start_of_an_id_is_refused(history: Database, llmasos) -> None:
    with history.write() as session:
        session.add(row("f" * 31 + "0", 1, status="succeeded"))
    assert "Several invocations start with ffff" in llmasos("logs", "ffff").stderr


def end(history: Database, id_: str) -> None:
    with history.write() as session:
        found = session.get(InvocationRow, id_)
        assert found is not None
        found.status, found.log, found.ended_at = "succeeded", "done", utc_now()
        session.add(found)


def test_following_one_invocation_shows_it_once_it_ended(history: Database, llmasos, monkeypatch) -> None:
    monkeypatch.setattr(invocations.time, "sleep", lambda _: end(history, RUNNING))
    assert llmasos("logs", "-f", "7777").stdout.splitlines()[1] == "  done"


def test_following_shows_what_ends_until_ctrl_c(history: Database, llmasos, monkeypatch) -> None:
    steps = iter([lambda: None, lambda: end(history, RUNNING), lambda: None])

    def sleep(_seconds: float) -> None:
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(invocations.time, "sleep", sleep)
    done = llmasos("logs", "--follow")
    assert done.exit_code == 130
    heads = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith("  ")]
    assert heads == ["555555555555", "ffffffffffff", "777777777777"]


@pytest.mark.parametrize("token_holds", [True, False])
async def test_a_servers_history_is_read_where_a_url_is_set(
    history: Database, llmasos, answer, token_holds: bool
) -> None:
    with history.write() as session:
        token = create_token(session, Principal()).token if token_holds else "none"
    with listen("127.0.0.1", 0) as listener:
        ready = asyncio.Event()
        server = Server(create_app(Settings()), ready.set)
        serving = asyncio.create_task(server._serve([listener]))
        await ready.wait()
        there = {"LLMASOS_URL": f"http://127.0.0.1:{listener.getsockname()[1]}", "LLMASOS_TOKEN": token}
        try:
            if not token_holds:
                done = await asyncio.to_thread(llmasos, "invocations", **there)
                assert (done.exit_code, done.stderr.count("\n")) == (3, 1)
                return
            listed = await asyncio.to_thread(lambda: answer("invocations", "acme/tool", **there))
            assert [item["id"] for item in listed["items"]] == [RUNNING, SAID]
            done = await asyncio.to_thread(lambda: llmasos("logs", "ffff", **there))
            assert r"Error (app-failed): The component did not pass: \x1b[31mempty" in done.stdout
        finally:
            server.should_exit = True
            await serving


def test_a_server_that_is_not_there_is_one_line_with_the_cure(llmasos) -> None:
    done = llmasos("logs", LLMASOS_URL="http://127.0.0.1:9")
    assert done.exit_code == 1
    assert "llmasos serve" in done.stderr


FAILING = '''
from llmasos_sdk import App, Context

app = App()


@app.action
def act(ctx: Context) -> str:
    """Fail."""
    print("printed")
    ctx.log.warning("logged")
    raise ValueError("the form is empty")  # line 12
'''


@pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))
def test_the_log_of_a_failed_app_has_its_prints_and_its_authors_lines(
    stocked_home: Path, tmp_path: Path, llmasos, answer
) -> None:
    project = tmp_path / "failing"
    project.mkdir()
    (project / "app.py").write_text(FAILING)
    (project / "llmapp.toml").write_text(manifest_text(extra="").replace('"wasm"', '"python"'))
    (project / "README.md").write_text("# Failing\n")
    answer("publish", str(project))
    answer("install", "acme/hello", "--yes")
    plain = llmasos("run", "acme/hello", "act")
    assert plain.stderr.count("\n") == 1
    log = answer("logs", "acme/hello")["log"]
    assert "printed" in log
    assert "logged" in log
    assert 'app.py", line 12, in act' in log
    debugged = llmasos("run", "acme/hello", "act", "--debug").stderr
    assert debugged.index('app.py", line 12, in act') < debugged.index("llmasos_server/cli/run.py")
