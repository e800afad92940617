"""What a newcomer does: quickstart, an app of their own, quotas, the audit log, the server, programs."""

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

# The first test includes the quickstart, which may take ten minutes on a busy machine.
pytestmark = [pytest.mark.model, pytest.mark.timeout(1800)]

COMPLAINT = "message=My card was charged twice and I need the money back today"
KEPT = ("bundles", "code", "compiled", "models")


def files_of(home: Path) -> dict[str, int]:
    """The files of the home except its database, with their modification times."""
    return {
        str(path.relative_to(home)): path.stat().st_mtime_ns
        for folder in KEPT
        for path in (home / folder).rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


def rows_of(home: Path) -> dict[str, list[Any]]:
    with sqlite3.connect(home / "llmasos.db") as database:
        tables = ("app", "release", "installation", "installed_release", "grant", "quota")
        return {name: sorted(database.execute(f'select * from "{name}"'), key=repr) for name in tables}


def tokens_of(usage: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """The use of models, without compute, since an app computes until it is refused."""
    return [(each["prompt_tokens"], each["completion_tokens"], each["cost_micro_usd"]) for each in usage]


def test_quickstart_prints_one_object_with_real_results(newcomer) -> None:
    user, answer = newcomer
    assert set(answer) == {"installed", "runs", "home"}
    assert answer["home"] == str(user.home)
    assert {"llmasos/triage", "llmasos/storyteller"} <= set(answer["installed"])
    triage, story = answer["runs"]
    for run in (triage, story):
        assert set(run) == {"app", "action", "output", "model", "usage", "duration_ms", "fuel", "memory_bytes"}
        assert set(run["usage"]) == {"prompt_tokens", "completion_tokens"}
        assert min(run["usage"]["prompt_tokens"], run["usage"]["completion_tokens"], run["fuel"]) > 0
        assert run["model"] == "smollm2"
        assert run["memory_bytes"] > 1 << 20
    assert triage["output"]["label"] == "billing"
    assert len(story["output"].split()) > 20


def test_a_second_quickstart_builds_and_changes_nothing(user) -> None:
    before = files_of(user.home), rows_of(user.home)
    told = user.does("quickstart")
    assert (files_of(user.home), rows_of(user.home)) == before
    assert before[1]["release"]
    assert "Building" not in told.stderr
    assert "Installing" not in told.stderr
    assert "today" in told.stdout


def test_a_new_app_is_tested_built_published_installed_and_run(user, stock, tmp_path: Path) -> None:
    stock.fill(user.home)
    user.does("new", "acme/hello", cwd=tmp_path)
    hello = tmp_path / "hello"
    user.does("test", cwd=hello)
    user.does("build", cwd=hello)
    [bundle] = (hello / "dist").glob("*.llmapp")
    inspected = user.reads("inspect", str(bundle), cwd=hello)
    assert {"permissions", "digest"} <= set(inspected)
    assert any("import" in key for key in inspected)
    published = user.reads("publish", ".", cwd=hello)
    assert published["state"] != "quarantined"
    assert user.does("install", published["app"], code=3).stderr.count("\n") >= 1
    user.does("install", published["app"], "--yes")
    ran = user.reads("run", published["app"], "greet", "-p", "name=Ann")
    assert len(ran["output"].split()) > 3


def test_a_run_in_json_reports_its_cost(user) -> None:
    ran = user.reads("run", "llmasos/triage", "classify", "-p", COMPLAINT)
    assert ran["output"]["label"] == "billing"
    assert ran["usage"]["prompt_tokens"] > 0


def test_a_used_up_quota_is_exit_code_4_and_spends_nothing(user) -> None:
    user.does("quota", "set", "--app", "llmasos/triage", "--meter", "tokens", "--window", "day", "--limit", "50")
    before = user.reads("usage")
    refused = user.does("run", "llmasos/triage", "classify", "-p", COMPLAINT, code=4)
    assert "quota" in refused.stderr
    assert refused.stdout == ""
    assert tokens_of(user.reads("usage")) == tokens_of(before)
    user.does("quota", "set", "--app", "llmasos/triage", "--meter", "tokens", "--window", "day", "--limit", "500000")


def test_every_exit_code(user) -> None:
    user.does("list")
    user.does("run", "llmasos/triage", "classify", "--input", "{", code=1)
    user.does("run", code=2)
    user.does("install", "llmasos/tutor", code=3)
    user.does("show", "acme/none", code=5)


def test_the_audit_log_verifies_until_a_row_is_changed(user, tmp_path: Path) -> None:
    user.does("audit", "verify")
    with (
        sqlite3.connect(user.home / "llmasos.db") as source,
        sqlite3.connect(tmp_path / "llmasos.db") as copy,
    ):
        source.backup(copy)
    with sqlite3.connect(tmp_path / "llmasos.db") as copy:
        copy.execute("drop trigger audit_entry_no_update")
        copy.execute("update audit_entry set outcome = 'never' where seq = 2")
    assert "was changed" in type(user)(tmp_path).does("audit", "verify", code=1).stderr


def test_the_server_streams_a_story(user) -> None:
    with user.start("serve", "--port", "0", "--json") as server:
        try:
            told = ""
            while not told.rstrip().endswith("}"):
                line = server.stdout.readline()
                assert line, server.stderr.read()
                told += line
            token = user.reads("tokens", "create")["token"]
            headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
            route = f"{json.loads(told)['url']}/api/v1/apps/llmasos/storyteller/actions/tell"
            with httpx.stream("POST", route, headers=headers, json={"premise": "a lighthouse"}, timeout=120) as answer:
                events = [line.removeprefix("event: ") for line in answer.iter_lines() if line.startswith("event: ")]
            assert events[-2:] == ["usage", "end"]
            assert events.count("chunk") > 5
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)
    assert server.returncode == 0


def test_the_two_seed_examples_work_as_written(user) -> None:
    program = """
import llmasos
print(llmasos.generate_text(engine="smollm2", prompt="Write one sentence about the sea.", max_tokens=40).text)
print(llmasos.translate(text="Good morning.", source_language="en", target_language="fr").text)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], env=user.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.split()) > 5
