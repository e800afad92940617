"""The shell of all commands: what it imports, its exit codes and its messages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from llmasos.errors import Denied, LlmasosError, NotFound, QuotaExceeded
from llmasos.home import default_home, state_home_and_database_url
from llmasos.settings import Settings
from llmasos_server.cli import registry, shell
from llmasos_server.cli.output import CommandOptions, options


def test_help_names_every_installed_command_and_imports_none_of_them() -> None:
    code = (
        "import sys; sys.argv = ['llmasos', '--help']\n"
        "from llmasos_server.cli import main\n"
        "try: main()\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        "loaded = {m.rpartition('.')[2] for m in sys.modules if m.startswith('llmasos_server.cli.')}\n"
        "heavy = {'pydantic', 'sqlmodel', 'sqlalchemy', 'litellm', 'wasmtime', 'rich', 'fastapi'} & set(sys.modules)\n"
        "print('LOADED', sorted(loaded), sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED ['coercion', 'output', 'registry', 'shell'] []" in done.stdout
    for entry in registry.ENTRIES:
        assert (f"  {entry.name} " in done.stdout) == shell.is_installed(entry)


def test_a_command_that_does_not_exist_is_a_usage_error_that_names_the_nearest(llmasos) -> None:
    done = llmasos("quikstart")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "Did you mean quickstart?" in done.stderr


def test_json_makes_a_usage_error_a_problem_document(llmasos) -> None:
    done = llmasos("nothing-like-it", "--json")
    assert (done.exit_code, json.loads(done.stderr)["code"]) == (2, "usage")


def test_chinese_readers_read_chinese(llmasos) -> None:
    assert "没有命令" in llmasos("nothing-like-it", LLMASOS_LOCALE="zh").stderr
    assert "大模型" in llmasos("--help", LLMASOS_LOCALE="zh").stdout


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> dict[str, BaseException | None]:
    """A command `migrate` that raises what the test puts there."""
    what: dict[str, BaseException | None] = {"raise": None}

    def migrate() -> None:
        if what["raise"] is not None:
            raise what["raise"]
        typer.echo("fine")

    real = shell.importlib.import_module

    def import_module(name: str) -> object:
        return type("M", (), {"migrate": staticmethod(migrate)}) if name.endswith("cli.admin") else real(name)

    monkeypatch.setattr(shell, "is_installed", lambda entry: True)
    monkeypatch.setattr(shell.importlib, "import_module", import_module)
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    return what


@pytest.mark.parametrize(
    ("error", "code"),
    [(LlmasosError("x"), 1), (Denied("x"), 3), (QuotaExceeded("x"), 4), (NotFound("x"), 5), (ValueError("x"), 1)],
)
def test_each_kind_of_error_is_one_line_with_its_own_exit_code(
    probe: dict[str, BaseException | None], error: Exception, code: int
) -> None:
    probe["raise"] = error
    done = CliRunner().invoke(shell.app, ["migrate"])
    assert done.exit_code == code
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "Traceback" in CliRunner().invoke(shell.app, ["migrate", "--debug"]).stderr
    problem = json.loads(CliRunner().invoke(shell.app, ["--json", "migrate"]).stderr)
    assert problem["detail"].endswith("x")


def test_an_error_is_shown_in_the_readers_language(
    probe: dict[str, BaseException | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe["raise"] = NotFound()
    monkeypatch.setenv("LLMASOS_LOCALE", "zh_CN.UTF-8")
    assert CliRunner().invoke(shell.app, ["migrate"]).stderr == "错误：不存在，或者你无权查看。\n"


@pytest.mark.parametrize("error", [None, NotFound("x"), ValueError("x"), KeyboardInterrupt()])
def test_the_options_of_a_command_line_do_not_outlive_it(
    probe: dict[str, BaseException | None], error: BaseException | None
) -> None:
    """10, section 6: `--json` of one command stayed set for whatever the process did next."""
    probe["raise"] = error
    CliRunner().invoke(shell.app, ["migrate", "--json", "--debug"])
    assert options() == CommandOptions()


def test_ctrl_c_ends_with_130_and_says_nothing(probe: dict[str, BaseException | None]) -> None:
    probe["raise"] = KeyboardInterrupt()
    done = CliRunner().invoke(shell.app, ["migrate"])
    assert (done.exit_code, done.stderr.strip()) == (130, "")


def test_a_reader_that_left_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m llmasos_server.cli --help | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("configured", ["", 'database_url = "sqlite:////tmp/other.db"\n', 'home = "/tmp/elsewhere"\n'])
@pytest.mark.parametrize("in_environment", [True, False])
def test_the_quick_path_to_the_database_is_that_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: str, in_environment: bool
) -> None:
    for name in ("LLMASOS_HOME", "LLMASOS_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    if in_environment:
        monkeypatch.setenv("LLMASOS_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    home = default_home()
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(configured)
    settings = Settings()
    assert state_home_and_database_url() == (settings.home, settings.resolved_database_url)


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLMASOS_HOME", "HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(LlmasosError, match="LLMASOS_HOME"):
        default_home()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "缺少参数 'app'"),
        (["list", "--nope"], "没有选项 --nope"),
        (["quota", "frobnicate"], "没有命令 'frobnicate'"),
        (["quota", "set", "--meter", "apples"], "'--meter' 的值无效：'apples' 不在可选值之中：'tokens'"),
        (["search", "--limit", "x"], "'--limit' 的值无效：'x'：须为整数"),
        (["new", "x", "--language"], "选项 '--language' 需要一个值"),
        (["list", "--json=3"], "选项 '--json' 不接受值"),
        (["list", "more", "words"], "多余的参数：more words"),
    ],
)
def test_a_usage_error_is_in_chinese_too(llmasos, words: list[str], said: str) -> None:
    done = llmasos(*words, LLMASOS_LOCALE="zh")
    assert done.exit_code == 2
    assert said in done.stderr


def test_help_is_in_chinese_too() -> None:
    # In a process of its own: some texts are chosen when their module is imported.
    code = (
        "from llmasos_server.cli import registry, shell\n"
        "for entry in registry.ENTRIES:\n"
        "    command = shell.load(entry)\n"
        "    for part in (command, *getattr(command, 'commands', {}).values()):\n"
        "        told = [part.help, *(getattr(each, 'help', None) for each in part.params)]\n"
        "        print(*(text for text in told if text and text.isascii()), sep='\\n', end='')\n"
    )
    environment = {**os.environ, "LLMASOS_LOCALE": "zh"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == ""
