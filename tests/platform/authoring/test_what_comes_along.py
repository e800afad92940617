"""What an app imports and reads anywhere comes along in its bundle, or the build fails and says so."""

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.platform.authoring.component_runs import ComponentRun, describe
from tests.platform.authoring.projects import error_of_entry

from llmasos.authoring import python
from llmasos.authoring.build import build, digest_of
from llmasos.authoring.imports import imports_of
from llmasos.authoring.native import build_native
from llmasos.authoring.process import BuildFailed
from llmasos.authoring.project import left_out, open_project, source_files
from llmasos.authoring.python import app_imports
from llmasos.bundles.reader import read_bundle
from llmasos.bundles.testing import manifest_text
from llmasos_sdk.testing import FakeHost

SOURCE = """
import json
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import numpy
try:
    import ujson
except ImportError:
    ujson = None

def late():
    import decimal
    from concurrent import futures
    from . import beside
    from ..above import thing
    importlib.import_module("helpers.extra")
    try:
        from lxml import etree
    except (ValueError, ModuleNotFoundError):
        import xml.etree
"""


def test_imports_are_found_anywhere_in_a_source() -> None:
    """11-14: relative imports, submodules, importlib and imports inside functions were missing at run time."""
    found = {(each.module, each.optional) for each in imports_of(SOURCE, "pkg.inner.module")}
    assert {name for name, optional in found if not optional} == {
        "json",
        "typing",
        "decimal",
        "concurrent",
        "pkg.inner",
        "pkg.above",
        "helpers.extra",
        "xml.etree",
    }
    assert {("ujson", True), ("lxml", True), ("concurrent.futures", True), ("pkg.inner.beside", True)} <= found
    assert not any(name.startswith("numpy") for name, _ in found)
    assert imports_of("def (", "app") == []


def test_every_module_of_an_app_is_imported_when_it_is_built(tmp_path: Path) -> None:
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("")
    (tmp_path / "helpers" / "extra.py").write_text("import yaml\n")
    (tmp_path / "app.py").write_text("import zoneinfo\ndef f():\n    from helpers import extra\n")
    found = app_imports(tmp_path)
    assert found.own == {"app", "helpers", "helpers.extra"}
    assert found.needed == {"zoneinfo": "app.py, line 1", "yaml": "helpers/extra.py, line 1"}
    assert found.uses_zones


APP = '''
import asyncio
from pathlib import Path

from llmasos_sdk import App, Context
from helpers import rel

app = App()


@app.action
def go(ctx: Context, how: str) -> str:
    """Go."""
    if how == "late":
        from helpers import extra
        return extra.go()
    if how == "relative":
        return rel.go()
    if how == "importlib":
        import importlib
        return importlib.import_module("helpers.extra").go()
    if how == "submodule":
        import xml.dom.minidom as m
        return m.parseString("<a>b</a>").documentElement.tagName
    if how == "encoding":
        return "中文".encode("gb18030").hex() + b"\\\\xe4".decode("cp1252")
    if how == "zone":
        from datetime import datetime
        from zoneinfo import ZoneInfo
        return datetime(2024, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai")).isoformat()
    if how == "asyncio":
        async def wait() -> str:
            await asyncio.sleep(0.001)
            return "waited"
        return asyncio.run(wait())
    if how == "path":
        return (Path(__file__).parent / "words.txt").read_text()
    if how == "open":
        with open("data/w.json", encoding="utf-8") as file:
            return file.read()
    if how == "resources":
        from importlib import resources
        return resources.files("helpers").joinpath("names.txt").read_text() + str(sorted(
            each.name for each in resources.files("helpers").iterdir() if each.name.endswith(".txt")))
    if how == "pkgutil":
        import pkgutil
        return pkgutil.get_data("helpers", "names.txt").decode()
    if how == "write":
        try:
            open("words.txt", "w")
        except OSError as error:
            return type(error).__name__
    return "?"
'''
ANSWERS = {
    "late": "extra",
    "relative": "deep",
    "importlib": "extra",
    "submodule": "a",
    "encoding": "d6d0cec4ä",
    "zone": "2024-01-01T00:00:00+08:00",
    "asyncio": "waited",
    "path": "hello\n",
    "open": '{"w": 1}',
    "resources": "Ada\n['names.txt']",
    "pkgutil": "Ada\n",
    "write": "OSError",
}


def project(folder: Path, kind: str) -> Path:
    """An app that reads and imports in every way."""
    (folder / "helpers").mkdir(parents=True)
    (folder / "data").mkdir()
    manifest = manifest_text("acme/along").replace('component = "app.wasm"', 'source = "app.py"')
    if kind == "python":
        manifest = manifest.replace('kind = "wasm"', 'kind = "python"')
    (folder / "llmapp.toml").write_text(manifest)
    (folder / "README.md").write_text("# Along\n")
    (folder / "app.py").write_text(APP.replace("\\\\", "\\"))
    (folder / "words.txt").write_text("hello\n")
    (folder / "data" / "w.json").write_text('{"w": 1}')
    (folder / "helpers" / "__init__.py").write_text("")
    (folder / "helpers" / "names.txt").write_text("Ada\n")
    (folder / "helpers" / "deep.py").write_text('def go(): return "deep"\n')
    (folder / "helpers" / "extra.py").write_text('def go(): return "extra"\n')
    (folder / "helpers" / "rel.py").write_text("def go():\n    from . import deep\n    return deep.go()\n")
    return folder


async def test_a_component_finds_its_modules_and_data_files(stocked_home: Path, tmp_path: Path) -> None:
    """11-14, 11-15, 11-20: what an app imports late or reads was missing, after check, build and publish passed."""

    folder = project(tmp_path / "along", "wasm")
    bundle = read_bundle(await build(folder, tmp_path, describe=describe))
    binary = tmp_path / "app.wasm"
    binary.write_bytes(bundle.component)
    run = ComponentRun(binary, FakeHost())
    assert {how: run.call("go", how=how) for how in ANSWERS} == ANSWERS


def test_a_module_that_does_not_import_is_named_with_its_place(tmp_path: Path) -> None:
    """11-14: it was found by the first user."""
    folder = project(tmp_path / "along", "wasm")
    (folder / "helpers" / "extra.py").write_text("def go():\n    import yaml\n    return yaml\n")
    said = error_of_entry(folder / "app.py", tmp_path / "staged")
    assert re.search(r"helpers/extra.py, line 2: .*yaml.*the app's own modules, and the packages", said)


def test_a_native_apps_data_files_come_along(tmp_path: Path) -> None:
    """11-15: only packages with an __init__ came along, and no file beside the source."""
    opened = open_project(project(tmp_path / "along", "python"))
    with zipfile.ZipFile(io.BytesIO(build_native(opened.root, opened.manifest).wheel)) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {
        "app.py",
        "words.txt",
        "data/w.json",
        "helpers/__init__.py",
        "helpers/names.txt",
        "helpers/deep.py",
        "helpers/extra.py",
        "helpers/rel.py",
    }


def test_a_new_readme_needs_no_new_component(tmp_path: Path) -> None:
    """10-6: each text and each version built every component again, for 12 s of compute."""
    folder = project(tmp_path / "along", "wasm")

    def staged(name: str) -> str:
        python.stage(folder / "app.py", frozenset(), tmp_path / name)
        return digest_of(tmp_path / name, "the same tool")

    before = staged("before")
    with (folder / "llmapp.toml").open("a") as manifest:
        manifest.write("# another version\n")
    for name in ("README.md", "README.zh.md", "CHANGELOG.md", "LICENSE", "requirements.lock"):
        (folder / name).write_text("new\n")
    assert staged("texts") == before
    assert left_out(folder) == []
    (folder / "helpers" / "README.md").write_text("data\n")
    assert staged("data") != before


@pytest.mark.parametrize("target", ["elsewhere", "inside", "nowhere"])
def test_a_linked_folder_is_refused_and_not_left_out(target: str, tmp_path: Path) -> None:
    """11-15: the package behind the link was left out without a word."""
    folder = project(tmp_path / "along", "wasm")
    (tmp_path / "elsewhere").mkdir()
    place = {"elsewhere": tmp_path / "elsewhere", "inside": folder / "helpers", "nowhere": folder / "gone"}[target]
    (folder / "common").symlink_to(place)
    with pytest.raises(BuildFailed, match="common is a link"):
        list(source_files(folder))


def test_what_does_not_come_along_is_listed(tmp_path: Path) -> None:
    """11-15: files were left out without a word."""
    folder = project(tmp_path / "along", "wasm")
    assert left_out(folder) == []
    for name in ("tests/test_app.py", "helpers/tests/deep/x.txt", ".git/config", "dist/old.llmapp", "test_more.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    assert left_out(folder) == [".git/", "dist/", "helpers/tests/", "test_more.py", "tests/"]


def test_data_files_are_served_from_memory_in_every_way(tmp_path: Path) -> None:
    """The same module as in a component, in a process whose files are gone."""
    folder = project(tmp_path / "along", "wasm")
    code = (
        "import sys, shutil, os, json; sys.path.insert(0, sys.argv[1])\n"
        "import app, helpers.extra, helpers.deep, importlib.resources, pkgutil, xml.dom.minidom, encodings.gb18030\n"
        "from llmasos_sdk import guest_files, guest_loop\n"
        "from llmasos_sdk.testing import FakeContext\n"
        "from zoneinfo import ZoneInfo; kept = ZoneInfo('Asia/Shanghai')\n"
        "guest_loop.install(); guest_files.keep(sys.argv[1]); shutil.rmtree(sys.argv[1])\n"
        "print(json.dumps({how: app.go(FakeContext(), how) for how in json.loads(sys.argv[2])}))\n"
    )
    words = [sys.executable, "-c", code, str(folder), json.dumps(list(ANSWERS))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ANSWERS
