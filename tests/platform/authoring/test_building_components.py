"""Sources become components: Python, JavaScript, TypeScript, and a core module of another language."""

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.platform.authoring.component_runs import ComponentRun, describe
from tests.platform.authoring.projects import MODEL, STORAGE, WORDS, write_project

from llmasos.authoring import javascript, wit, wrap
from llmasos.authoring.build import build, digest_of
from llmasos.authoring.native import build_native
from llmasos.authoring.process import BuildFailed
from llmasos.authoring.project import open_project
from llmasos.bundles.reader import read_bundle
from llmasos_sdk import AppFailed, CapabilityNotDeclared, Conflict, Denied, SchemaMismatch
from llmasos_sdk.pytest_plugin import load_app
from llmasos_sdk.testing import FakeContext, FakeHost, MemoryStorage, ScriptedModel, call

HERE = Path(__file__).parent
PYTHON = '''
"""One source for host tests and for components."""
from collections.abc import Iterator
from datetime import datetime

from llmasos_sdk import App, Context
from words import shout

app = App()


@app.action
def echo(ctx: Context, text: str) -> str:
    """Say it louder."""
    return shout(ctx.model.generate(text).text)


@app.action
def tell(ctx: Context, premise: str) -> Iterator[str]:
    yield from ctx.model.stream(premise)


@app.action
def claim(ctx: Context, key: str) -> int:
    return ctx.storage.compare_and_set(key, None, "mine")


@app.action
def late(ctx: Context) -> list[str]:
    from decimal import Decimal

    return [str(Decimal("1.10") + 1), datetime.strptime("2026-02-03", "%Y-%m-%d").isoformat(), "\\ud800!"]


@app.action
def fail(ctx: Context) -> str:
    raise KeyError("gone")


@app.action
def reach(ctx: Context) -> int:
    return ctx.http.get("https://example.com").status


@app.action
def dice(ctx: Context) -> float:
    import random

    return random.random()
'''


@pytest.fixture(scope="module")
def home(stock: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with stock.home(tmp_path_factory.mktemp("home")) as home:
        yield home


@pytest.fixture(autouse=True)
def _home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMASOS_HOME", str(home))


@pytest.fixture(scope="module")
def python_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runtime = 'kind = "wasm"\nsource = "app.py"'
    files = {"app.py": PYTHON, "words.py": WORDS, "tests/test_x.py": "raise SystemExit('never imported')"}
    return write_project(tmp_path_factory.mktemp("py") / "p", files, runtime, MODEL + STORAGE)


@pytest.fixture(scope="module")
def python_bundle(python_project: Path, home: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMASOS_HOME", str(home))
        return asyncio.run(build(python_project, describe=describe))


@pytest.fixture(scope="module")
def python_component(python_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> ComponentRun:
    path = tmp_path_factory.mktemp("component") / "app.wasm"
    path.write_bytes(read_bundle(python_bundle).component or b"")
    return ComponentRun(path, FakeHost(model=ScriptedModel(), storage=MemoryStorage()))


def test_a_python_component_imports_exactly_what_its_manifest_declares(python_component: ComponentRun) -> None:
    assert python_component.contract_imports == {"model", "storage", "output", "log", "config"}
    assert all(name.startswith(("llmasos:app/", "wasi:")) for name in python_component.imports)


def test_one_source_answers_alike_in_a_host_test_and_in_a_component(
    python_project: Path, python_component: ComponentRun
) -> None:
    app = load_app(python_project, {"runtime": {"source": "app.py"}})
    assert json.loads(python_component.describe()) == app.describe()
    for action, inputs, script in (
        ("echo", {"text": "hé"}, "soft 你好"),
        ("tell", {"premise": "sea"}, "Once upon a time."),
        ("claim", {"key": "a"}, ""),
    ):
        host = FakeHost(model=ScriptedModel(script), storage=MemoryStorage())
        python_component.host = host
        ctx = FakeContext(model=ScriptedModel(script), storage=MemoryStorage())
        assert python_component.call(action, **inputs) == call(app, action, ctx, **inputs)
        assert host.chunks == ctx.fake.chunks
        assert host.model.requests == ctx.scripted.requests


def test_errors_keep_their_case_across_the_component(python_component: ComponentRun) -> None:
    python_component.host = FakeHost(model=ScriptedModel(), storage=MemoryStorage({"a": "theirs"}))
    with pytest.raises(Conflict, match="a has version 1, not None"):
        python_component.call("claim", key="a")
    with pytest.raises(Denied, match=r'capability = "http"'):
        python_component.call("reach")
    with pytest.raises(Exception, match=r"the app failed: KeyError: 'gone' \(app.py, line \d+\)"):
        python_component.call("fail")
    assert "Traceback" in python_component.host.logs[0][1]
    with pytest.raises(Exception, match="txt: there is no such input; known are: text"):
        python_component.call("echo", txt="x")


def test_imports_inside_functions_work_and_letters_that_cannot_cross_are_mended(python_component: ComponentRun) -> None:
    assert python_component.call("late") == ["2.10", "2026-02-03T00:00:00", "\ufffd!"]


def test_two_runs_do_not_share_their_chance(python_component: ComponentRun) -> None:
    assert python_component.call("dice") != python_component.call("dice")


async def test_the_same_source_gives_the_same_bytes(python_project: Path, python_bundle: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "copy"
    shutil.copytree(python_project, elsewhere, ignore=shutil.ignore_patterns("dist", "__pycache__"))
    again = await build(elsewhere, tmp_path / "out.llmapp", describe=describe)
    assert again.read_bytes() == python_bundle.read_bytes()


async def test_a_source_that_does_not_import_says_what_and_where(tmp_path: Path) -> None:
    files = {"app.py": "from llmasos_sdk import App\n\napp = App()\nimport nowhere\n"}
    project = write_project(tmp_path / "p", files, 'kind = "wasm"\nsource = "app.py"', MODEL)
    with pytest.raises(BuildFailed) as raised:
        await build(project, describe=describe)
    assert raised.value.message == (
        "the source does not import: ModuleNotFoundError: No module named 'nowhere' (app.py, line 4)"
    )
    assert not (project / "dist").exists()


DESCRIBED = '[{"name":"say","input_schema":{"type":"object"},"output_schema":{}}]'
ANSWER = '"hello from a core module"'
CORE = """
(module
  (import "llmasos:app/log@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const 4096))
  (data (i32.const 16) "DESCRIBED")
  (data (i32.const 256) "ANSWER")
  (data (i32.const 512) "info")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "llmasos:app/handler@0.1.0#describe") (result i32)
    (i32.store (i32.const 1024) (i32.const 16))
    (i32.store (i32.const 1028) (i32.const DESCRIBED_LENGTH))
    (i32.const 1024))
  (func (export "llmasos:app/handler@0.1.0#call") (param i32 i32 i32 i32) (result i32)
    (call $write (i32.const 512) (i32.const 4) (local.get 2) (local.get 3) (i32.const 1100))
    (i32.store8 (i32.const 1040) (i32.const 0))
    (i32.store (i32.const 1044) (i32.const 256))
    (i32.store (i32.const 1048) (i32.const ANSWER_LENGTH))
    (i32.const 1040)))
"""
for _name, _text in (("DESCRIBED", DESCRIBED), ("ANSWER", ANSWER)):
    CORE = CORE.replace(f"{_name}_LENGTH", str(len(_text))).replace(_name, _text.replace('"', "\\22"))


def core_module(folder: Path, text: str = CORE) -> Path:
    """A core module from its text, as a compiler of another language makes it."""
    source, binary = folder / "app.wat", folder / "app.wasm"
    source.write_text(text)
    subprocess.run([wrap.wasm_tools(), "parse", source, "-o", binary], check=True)
    return binary


async def test_a_core_module_is_wrapped_into_a_component_that_runs(tmp_path: Path) -> None:
    project = write_project(tmp_path / "p", {}, 'kind = "wasm"\ncomponent = "app.wasm"', MODEL)
    core_module(project)
    bundle = read_bundle(await build(project, describe=describe))
    path = tmp_path / "app.wasm"
    path.write_bytes(bundle.component or b"")
    run = ComponentRun(path, FakeHost())
    # It calls no model, so it imports none: importing less than declared is always allowed.
    assert run.contract_imports == {"log"}
    assert run.call("say", a=1) == "hello from a core module"
    assert run.host.logs == [("info", '{"a": 1}')]
    assert [action.name for action in bundle.actions] == ["say"]


async def test_a_finished_component_is_taken_as_it_is(tmp_path: Path) -> None:
    first = write_project(tmp_path / "a", {}, 'kind = "wasm"\ncomponent = "app.wasm"', MODEL)
    core_module(first)
    made = read_bundle(await build(first, describe=describe)).component
    second = write_project(tmp_path / "b", {}, 'kind = "wasm"\ncomponent = "app.wasm"', MODEL)
    (second / "app.wasm").write_bytes(made or b"")
    assert read_bundle(await build(second, describe=describe)).component == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("llmasos:app/log@0.1.0", "llmasos:app/http@0.1.0", 1), "does not fit the world"),
        (lambda text: text.replace("llmasos:app/log@0.1.0", "wasi_snapshot_preview1", 1), "WASI preview 1"),
        (lambda text: text.replace('"llmasos:app/handler@0.1.0#call"', '"other"'), "does not fit the world"),
    ],
)
async def test_a_core_module_that_does_not_fit_its_world_is_refused(change, message: str, tmp_path: Path) -> None:
    project = write_project(tmp_path / "p", {}, 'kind = "wasm"\ncomponent = "app.wasm"', MODEL)
    core_module(project, change(CORE))
    with pytest.raises(BuildFailed, match=message):
        await build(project, describe=describe)


async def test_a_file_that_is_no_webassembly_is_refused(tmp_path: Path) -> None:
    project = write_project(tmp_path / "p", {"app.wasm": "hello"}, 'kind = "wasm"\ncomponent = "app.wasm"', MODEL)
    with pytest.raises(BuildFailed, match=r"app\.wasm is not WebAssembly"):
        await build(project, describe=describe)


def test_the_world_imports_the_declared_interfaces_and_the_baseline() -> None:
    assert wit.imported(frozenset({"storage"})) == ["output", "log", "config", "storage"]
    text = wit.world(frozenset())
    assert text.endswith("world llmapp {\n  import output;\n  import log;\n  import config;\n  export handler;\n}\n")


def test_a_native_apps_wheel_is_the_same_for_the_same_files(tmp_path: Path) -> None:
    runtime = 'kind = "python"\nsource = "app.py"'
    made = []
    for name in ("a", "b"):
        project = write_project(tmp_path / name, {"app.py": PYTHON, "words.py": WORDS}, runtime, MODEL + STORAGE)
        made.append(build_native(project, open_project(project).manifest))
    assert made[0] == made[1]
    name, content = made[0].wheel_name, made[0].wheel
    (tmp_path / name).write_bytes(content)
    installed = tmp_path / "site"
    zipfile.ZipFile(tmp_path / name).extractall(installed)
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(installed)!r})\n"
            "from importlib.metadata import entry_points\n"
            "from llmasos_sdk.hooks import GROUP, plugin_manager\n"
            "manager = plugin_manager(); manager.load_setuptools_entrypoints(GROUP)\n"
            "print([each['name'] for each in manager.hook.actions()])",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert loaded.stdout.startswith("['echo', 'tell', 'claim'")


def test_a_staged_folder_is_known_by_names_contents_and_tools(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    first = digest_of(tmp_path, "tools 1")
    assert digest_of(tmp_path, "tools 2") != first
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_of(tmp_path, "tools 1") != first
    assert len(first) == hashlib.sha256().digest_size * 2


def test_the_errors_of_the_sdk_are_cases_of_the_contract() -> None:
    assert {AppFailed.tag, SchemaMismatch.tag} == {"invalid"}
    assert CapabilityNotDeclared.tag == "denied"
    assert javascript.toolchain_digest()
