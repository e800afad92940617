"""`list`, `search`, `show`: what they say, and what they do not import."""

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
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    catalog = open_catalog(folder)
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        add_bundle(catalog, make_bundle(folder / "made", manifest_text(version=version)))
    catalog.database.close()
    return folder


def llmasos(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LLMASOS_HOME": str(home), "LLMASOS_LOCALE": "en", **more}
    return subprocess.run(
        [sys.executable, "-m", "llmasos_server.cli", *words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


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


def test_search_and_show_answer_people_and_programs(home: Path) -> None:
    assert "acme/hello  1.10.0" in llmasos(home, "search", "hello").stdout
    assert json.loads(llmasos(home, "search", "--json").stdout)["items"][0]["latest_version"] == "1.10.0"
    shown = json.loads(llmasos(home, "show", "acme/hello", "--json").stdout)
    assert [release["version"] for release in shown["releases"]] == ["1.10.0", "1.9.0", "1.0.0"]
    assert shown["release"]["manifest"]["id"] == "acme/hello"
    assert json.loads(llmasos(home, "--json", "show", "acme/hello@1.0.0").stdout)["release"]["version"] == "1.0.0"
    assert "你好" in llmasos(home, "show", "acme/hello", LLMASOS_LOCALE="zh").stdout


@pytest.mark.parametrize(("words", "hint"), [(["acme/helo"], "acme/hello"), (["acme/hello@7"], "no release 7")])
def test_what_is_not_there_is_exit_code_5_with_a_hint(home: Path, words: list[str], hint: str) -> None:
    done = llmasos(home, "show", *words)
    assert done.returncode == 5
    assert hint in done.stderr


def test_an_empty_home_is_empty_and_stays_so(tmp_path: Path) -> None:
    assert "Nothing is installed" in llmasos(tmp_path, "list").stdout
    assert json.loads(llmasos(tmp_path, "list", "--json").stdout) == {"items": []}
    assert "quickstart" in llmasos(tmp_path, "search").stdout
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_may_not_be_written_is_read(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    for path in (*copy.rglob("*"), copy):
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    try:
        done = llmasos(copy, "search", "hello")
    finally:
        for path in (copy, *copy.rglob("*")):
            path.chmod(stat.S_IRWXU)
    assert done.returncode == 0, done.stderr
    assert "acme/hello" in done.stdout


def test_a_limit_that_is_no_number_is_an_error_of_usage(home: Path) -> None:
    done = llmasos(home, "search", "--limit", "many")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert llmasos(home, "search", "--limit", "0").returncode == 2
    assert "acme/hello" in llmasos(home, "search", "--limit", "1").stdout
