"""npm packages that a JavaScript app adds: locked by hash, bundled into a component, there in the app's tests."""

import base64
import hashlib
import http.server
import io
import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.platform.authoring.apps_with_packages import write_app
from tests.platform.authoring.component_runs import ComponentRun, describe

from llmasos.authoring import javascript, npm
from llmasos.authoring.add import add
from llmasos.authoring.build import build
from llmasos.authoring.process import BuildFailed
from llmasos.authoring.project import open_project
from llmasos.authoring.testing import environment, node_command
from llmasos.bundles.reader import read_bundle
from llmasos.errors import Conflict
from llmasos_sdk.testing import FakeHost

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")
JAVASCRIPT = """
import { App } from "@llmasos/sdk";
import shout from "wordy";

export const app = new App();
app.action("go", { title: { en: "Go" }, input: { text: { type: "string" } } }, (ctx, { text }) => shout(text));
"""
JAVASCRIPT_TESTS = """
import test from "node:test";
import assert from "node:assert";
import shout from "wordy";
test("shouts", () => assert.equal(shout("a"), "A!"));
"""
# `wordy` names its file by `main`, as older packages do, and needs `marks`.
NPM: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "wordy": (
        {"main": "lib.js", "dependencies": {"marks": "^1.0.0"}},
        {"lib.js": 'const { mark } = require("marks");\nmodule.exports = (text) => text.toUpperCase() + mark;\n'},
    ),
    "marks": ({"main": "index.js"}, {"index.js": 'exports.mark = "!";\n'}),
    "holder": ({"main": "index.js"}, {"index.js": "", "node_modules/@deep/inner/build/fast.node": "machine code"}),
    "fast": ({"main": "index.js"}, {"index.js": "", "build/fast.node": "machine code"}),
    "nodish": ({"main": "index.js"}, {"index.js": 'module.exports = require("node:fs").readFileSync;\n'}),
    "script": ({"main": "index.js", "scripts": {"install": "touch ran"}}, {"index.js": ""}),
}


def _tarball(name: str) -> bytes:
    description, files = NPM[name]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        texts = {"package.json": json.dumps({"name": name, "version": "1.0.0", **description}), **files}
        for path, text in texts.items():
            entry = tarfile.TarInfo(f"package/{path}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMASOS_HOME", str(tmp_path / "home"))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, bytes]]:
    """A registry of npm's on loopback; the tarballs that it serves."""
    served = {name: _tarball(name) for name in NPM}

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, _, file = self.path.strip("/").partition("/")
            if name not in served:
                self.send_error(404)
                return
            body = served[name] if file else json.dumps(self._described(name)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _described(self, name: str) -> dict[str, Any]:
            integrity = "sha512-" + base64.b64encode(hashlib.sha512(served[name]).digest()).decode()
            url = f"http://127.0.0.1:{self.server.server_address[1]}/{name}/{name}.tgz"
            version = {
                "name": name,
                "version": "1.0.0",
                **NPM[name][0],
                "dist": {"tarball": url, "integrity": integrity},
            }
            version["hasInstallScript"] = "scripts" in version
            return {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_address[1]}/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    yield served
    server.shutdown()
    server.server_close()


def write_javascript(folder: Path) -> Path:
    return write_app(folder, source="app.js", **{"app.js": JAVASCRIPT, "tests/app.test.js": JAVASCRIPT_TESTS})


@pytest.mark.node
@needs_npm
async def test_npm_packages_are_locked_and_there_in_the_tests(registry: dict[str, bytes], tmp_path: Path) -> None:
    """11-33: a JavaScript app could not have a dependency."""
    project = write_javascript(tmp_path / "p")
    assert await add(project, ["wordy"]) == ["wordy@1.0.0"]
    lock = json.loads((project / "package-lock.json").read_text())
    assert set(lock["packages"]) == {"", "node_modules/wordy", "node_modules/marks"}
    assert "127.0.0.1" not in json.dumps(lock)
    opened = open_project(project)
    env = await environment(opened)
    run = subprocess.run(node_command(opened), cwd=project, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.node
@needs_npm
@pytest.mark.parametrize(("name", "told"), [("fast", "fast"), ("script", "script"), ("holder", "@deep/inner")])
async def test_an_npm_package_with_machine_code_is_refused(
    name: str, told: str, registry: dict[str, bytes], tmp_path: Path
) -> None:
    """11-33: and the project stays as it was."""
    project = write_javascript(tmp_path / "p")
    with pytest.raises(BuildFailed, match=f"{told} is not pure JavaScript.*--runtime python"):
        await add(project, [name])
    assert not (project / "package.json").exists()
    assert not (project / "package-lock.json").exists()


@pytest.mark.node
@needs_npm
async def test_an_npm_package_is_held_to_its_hash(registry: dict[str, bytes], tmp_path: Path) -> None:
    project = write_javascript(tmp_path / "p")
    await add(project, ["wordy"])
    path = project / "package-lock.json"
    locked = json.loads(path.read_text())
    locked["packages"]["node_modules/marks"]["integrity"] = "sha512-" + base64.b64encode(bytes(64)).decode()
    path.write_text(json.dumps(locked))
    with pytest.raises(BuildFailed, match="npm ci failed"):
        await npm.install_pure(project, tmp_path / "out")
    del locked["packages"]["node_modules/marks"]["integrity"]
    path.write_text(json.dumps(locked))
    with pytest.raises(BuildFailed, match="pins no hash of marks"):
        await npm.install_pure(project, tmp_path / "out")
    path.unlink()
    with pytest.raises(Conflict, match="run `llmasos add`"):
        await npm.install_pure(project, tmp_path / "out")


@pytest.fixture
async def jco(stock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The JavaScript tools, which come from the machine's own registry."""
    with stock.home(tmp_path / "stock") as home:
        monkeypatch.setenv("LLMASOS_HOME", str(home))
        await javascript.toolchain()
        yield


@pytest.mark.node
@needs_npm
async def test_a_javascript_component_has_the_packages_that_were_added(
    jco: None, registry: dict[str, bytes], tmp_path: Path
) -> None:
    """11-33: a package of CommonJS, named by `main`, and what it needs are bundled."""
    project = write_javascript(tmp_path / "p")
    await add(project, ["wordy"])
    bundle = read_bundle(await build(project, describe=describe))
    path = tmp_path / "app.wasm"
    path.write_bytes(bundle.component or b"")
    assert ComponentRun(path, FakeHost()).call("go", text="a") == "A!"


@pytest.mark.node
@needs_npm
async def test_a_javascript_package_that_needs_node_does_not_build(
    jco: None, registry: dict[str, bytes], tmp_path: Path
) -> None:
    project = write_javascript(tmp_path / "p")
    await add(project, ["nodish"])
    (project / "app.js").write_text(JAVASCRIPT.replace('"wordy"', '"nodish"'))
    with pytest.raises(BuildFailed, match="node:fs"):
        await build(project, describe=describe)
