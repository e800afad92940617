"""The commands `quota`, `usage` and `audit`."""

import json
import sqlite3
from pathlib import Path

import pytest

from llmasos.database.engine import Database, utc_now
from llmasos.installs.tables import Installation, Workspace
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.service import QuotaName, add_quota

QUOTA = ("--app", "acme/one", "--meter", "tokens", "--window", "day")


@pytest.fixture
def installed(llmasos, home: Path) -> None:
    """acme/one is installed, and brought a limit of its own."""
    assert llmasos("quota", "list").exit_code == 0
    with Database(f"sqlite:///{home / 'llmasos.db'}") as database, database.write() as session:
        now = utc_now()
        session.add(Workspace(id="default", name="default", created_at=now))
        session.flush()
        session.add(
            Installation(id="i", workspace_id="default", app_id="acme/one", installed_by="local", installed_at=now)
        )


def test_a_quota_for_what_is_not_there_is_refused(llmasos, installed: None) -> None:
    """11-27: a quota for an app that nobody installed was accepted, and limited nothing."""
    for words, said in (
        (("--app", "nope/nope"), "No app 'nope/nope' is installed here; `llmasos list` shows"),
        (("--app", "acme/on"), "did you mean 'acme/one'?"),
        (("--model", "nope"), "nope"),
    ):
        refused = llmasos("quota", "set", *words, "--limit", "5")
        assert (refused.exit_code, refused.stdout, said in refused.stderr) == (5, "", True), refused.stderr
    assert json.loads(llmasos("quota", "list", "--json").stdout) == []
    assert llmasos("quota", "set", "--model", "smollm2", "--limit", "5").exit_code == 0


def test_a_list_says_who_set_each_limit(llmasos, installed: None, home: Path) -> None:
    """11-27: two rows for one app, and no word why."""
    llmasos("quota", "set", *QUOTA, "--limit", "50")
    assert "the lower one holds" not in llmasos("quota", "list").stdout
    with Database(f"sqlite:///{home / 'llmasos.db'}") as database, database.write() as session:
        name = QuotaName("default", Scope.APP, "acme/one", Meter.TOKENS, Window.DAY, source="i")
        add_quota(session, name.row(70))
    lines = llmasos("quota", "list").stdout.splitlines()
    assert [any(word in line for line in lines) for word in ("SET BY", "you", "the app")] == [True] * 3
    assert "of two limits, the lower one holds" in " ".join(lines)


def test_a_quota_is_set_changed_listed_and_removed(llmasos, installed: None) -> None:
    assert llmasos("quota", "set", *QUOTA, "--limit", "50").stdout == "app acme/one, tokens/day: at most 50.\n"
    assert llmasos("quota", "set", *QUOTA, "--limit", "70").exit_code == 0
    llmasos("quota", "set", "--limit", "1000")
    app, workspace = json.loads(llmasos("quota", "list", "--json").stdout)
    assert (app["scope"], app["scope_id"], app["limit"], app["left"]) == ("app", "acme/one", 70, 70)
    assert app["resets_at"].endswith("00:00:00+00:00")
    assert (workspace["scope"], workspace["scope_id"]) == ("workspace", "default")
    assert "acme/one" in llmasos("quota", "list").stdout
    assert llmasos("quota", "remove", *QUOTA).exit_code == 0
    gone = llmasos("quota", "remove", *QUOTA)
    assert (gone.exit_code, gone.stdout) == (5, "")
    assert "llmasos quota set --app acme/one" in gone.stderr
    assert len(gone.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--limit", "-1"), "A limit is from 0"),
        (("--limit", "5", "--app", "Acme"), "acme/translator"),
        (("--limit", "5", "--app", "a/b", "--model", "m"), "one thing"),
        (("--limit", "5", "--meter", "apples"), "apples"),
        (("--limit", "much"), "Invalid value for '--limit'"),
    ],
)  # fmt: skip
def test_an_impossible_quota_is_refused(llmasos, words: tuple[str, ...], said: str) -> None:
    done = llmasos("quota", "set", *words)
    assert done.exit_code in {1, 2}
    assert said in done.stderr
    assert json.loads(llmasos("quota", "list", "--json").stdout) == []


def test_usage_is_empty_at_first_in_both_languages(llmasos) -> None:
    assert llmasos("usage", "--json").stdout.strip() == "[]"
    assert llmasos("usage").stdout == "Nothing was used yet.\n"
    assert llmasos("usage", LLMASOS_LOCALE="zh").stdout == "暂无用量。\n"


def test_the_audit_log_records_quotas_and_detects_tampering(llmasos, home: Path, installed: None) -> None:
    llmasos("quota", "set", *QUOTA, "--limit", "50")
    llmasos("quota", "remove", *QUOTA)
    assert [line["event"] for line in json.loads(llmasos("audit", "--json").stdout)] == ["quota.set", "quota.remove"]
    assert json.loads(llmasos("audit", "verify", "--json").stdout)["intact"] is True
    with sqlite3.connect(home / "llmasos.db") as connection:
        connection.execute("DROP TRIGGER audit_entry_no_update")
        connection.execute("UPDATE audit_entry SET detail = replace(detail, '50', '5000') WHERE seq = 1")
    connection.close()
    found = llmasos("audit", "verify")
    assert found.exit_code == 1
    assert "line 1 was changed" in found.stderr
