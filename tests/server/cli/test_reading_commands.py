"""The commands `list`, `search` and `show`: what they print, and what they do not import."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llmasos.bundles.testing import make_bundle, manifest_text
from llmasos_marketplace.catalog.testing import add_bundle, open_catalog


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose catalog has three releases of one app."""
    folder = tmp_path_factory.mktemp("home")
    catalog = open_catalog(folder)
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        add_bundle(catalog, make_bundle(folder / "made", manifest_text(version=version)))
    catalog.database.close()
    return folder


@pytest.fixture
def home(template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMASOS_HOME", str(template))
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    for name in ("LLMASOS_DATABASE_URL", "LLMASOS_URL"):
        monkeypatch.delenv(name, raising=False)
    return template


@pytest.mark.parametrize("words", [["list"], ["search"], ["search", "hello"], ["show", "acme/hello"]])
def test_a_reading_command_imports_nothing_heavy(home: Path, words: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['llmasos', *sys.argv[1:]]\n"
        "from llmasos_server.cli import main\n"
        "try: main()\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        "heavy = {'pydantic', 'sqlmodel', 'sqlalchemy', 'alembic', 'litellm', 'rich', 'fastapi', 'asyncio'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LLMASOS_HOME": str(home)},
    )
    assert "HEAVY []" in done.stdout


def test_search_and_show_print_for_people_and_programs(llmasos, answer) -> None:
    assert "acme/hello  1.10.0" in llmasos("search", "hello").stdout
    assert answer("search")["items"][0]["latest_version"] == "1.10.0"
    shown = answer("show", "acme/hello")
    assert [release["version"] for release in shown["releases"]] == ["1.10.0", "1.9.0", "1.0.0"]
    assert shown["release"]["manifest"]["id"] == "acme/hello"
    assert json.loads(llmasos("--json", "show", "acme/hello@1.0.0").stdout)["release"]["version"] == "1.0.0"
    assert "你好" in llmasos("show", "acme/hello", LLMASOS_LOCALE="zh").stdout


def test_a_mistyped_search_finds_what_it_meant(llmasos, answer) -> None:
    """11-40: `search storry` found nothing."""
    done = llmasos("search", "helo")
    assert "acme/hello" in done.stdout
    assert "'hello'" in done.stderr
    assert answer("search", "helo")["items"][0]["id"] == "acme/hello"
    assert "No app matches" in llmasos("search", "zebra").stdout


@pytest.mark.parametrize(("words", "hint"), [(["acme/helo"], "acme/hello"), (["acme/hello@7"], "no release 7")])
def test_what_is_missing_is_exit_code_5_with_a_hint(llmasos, words: list[str], hint: str) -> None:
    done = llmasos("show", *words)
    assert done.exit_code == 5
    assert hint in done.stderr


def test_reading_leaves_an_empty_home_empty(llmasos, tmp_path: Path) -> None:
    home = str(tmp_path)
    assert "Nothing is installed" in llmasos("list", LLMASOS_HOME=home).stdout
    assert json.loads(llmasos("list", "--json", LLMASOS_HOME=home).stdout) == {"items": []}
    assert "quickstart" in llmasos("search", LLMASOS_HOME=home).stdout
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_may_not_be_written_is_read(llmasos, home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    for path in (*copy.rglob("*"), copy):
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    try:
        done = llmasos("search", "hello", LLMASOS_HOME=str(copy))
    finally:
        for path in (copy, *copy.rglob("*")):
            path.chmod(stat.S_IRWXU)
    assert done.exit_code == 0, done.stderr
    assert "acme/hello" in done.stdout


def test_a_limit_that_is_no_number_is_a_usage_error(llmasos) -> None:
    done = llmasos("search", "--limit", "many")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert llmasos("search", "--limit", "0").exit_code == 2
    assert "acme/hello" in llmasos("search", "--limit", "1").stdout
