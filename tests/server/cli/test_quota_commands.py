"""The commands `quota`, `usage` and `audit`."""

import json
import sqlite3
from pathlib import Path

import pytest

QUOTA = ("--app", "acme/one", "--meter", "tokens", "--window", "day")


def test_a_quota_is_set_changed_listed_and_removed(llmasos) -> None:
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


def test_the_audit_log_records_quotas_and_detects_tampering(llmasos, home: Path) -> None:
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
