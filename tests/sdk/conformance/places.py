"""Where the conformance app runs: against the fakes of each language, and in the sandbox against a whole host."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from threading import Thread
from typing import Any

import llmasos.errors
import llmasos_sdk
from llmasos.authoring.build import component_from_source
from llmasos.authoring.native import build_native
from llmasos.authoring.project import open_project
from llmasos.bundles.actions import parse_actions
from llmasos.bundles.manifest import Manifest
from llmasos.bundles.reader import code_digest
from llmasos.capabilities.storage import Area, Value
from llmasos.errors import AppFailed, LlmasosError
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.testing import ScriptedProvider, ScriptedReply, scripted_entry, scripted_gateway
from llmasos.host import Host, HostParts
from llmasos.invocations.run import Runnable
from llmasos.kernel.invocation import Event, InstalledApp, InvocationLimits, Principal
from llmasos.runtimes.runtime import Program
from llmasos.secrets import SecretOwner, Secrets
from llmasos.settings import Settings
from llmasos.testing import FakeAction, FakeApps, Guest
from llmasos_sdk.app import App
from llmasos_sdk.fakes.model import ScriptedModel
from llmasos_sdk.host import BASELINE_CAPABILITIES
from llmasos_sdk.testing import FakeContext, MemoryStorage
from llmasos_sdk.testing import call as call_app

HERE = Path(__file__).parent
SDK = HERE.parents[2] / "sdk" / "js"
APP = "acme/conformance"
CALLEE = "acme/callee"
Scenarios = list[Any]


def placed(scenario: Any, server: str, nobody: str) -> Any:
    """The scenario with the addresses of a place."""
    text = json.dumps(scenario.inputs).replace("{server}", server).replace("{nobody}", nobody)
    return dataclasses.replace(scenario, inputs=json.loads(text))


# Fakes


def python_app() -> App:
    spec = importlib.util.spec_from_file_location("conformance_app", HERE / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


def _answer(given: Any) -> Any:
    if isinstance(given, str):
        return given
    if "tool" in given:
        return llmasos_sdk.ToolCall(*given["tool"])
    if "fails" in given:
        return llmasos_sdk.Unavailable("the provider failed")
    return lambda request: request["messages"][-1]["content"]


def _fail(kind: str) -> None:
    raise getattr(llmasos_sdk, kind)("why")


def _crash() -> None:
    raise ValueError("no such thing")


def _respond(request: dict[str, Any]) -> dict[str, Any]:
    server, _, path = request["url"].removeprefix("http://").partition("/")
    if server == "nobody.test":
        raise llmasos_sdk.Unavailable("nobody listens there")
    if server != "server.test":
        raise llmasos_sdk.Denied("the grant names another server")
    headers = {"X-Seen": request["method"]}
    if path != "echo":
        return {"status": 404, "headers": headers}
    body = request.get("body", "")
    return {"status": 200, "headers": headers, "body": llmasos_sdk.results.bytes_from(request, "body") if body else b""}


def python_fakes(scenarios: Scenarios) -> list[dict[str, Any]]:
    """What each scenario gives with `FakeContext`."""
    app = python_app()
    return [_told(app, placed(each, "http://server.test", "http://nobody.test")) for each in scenarios]


def _told(app: App, scenario: Any) -> dict[str, Any]:
    ctx = FakeContext(
        model=ScriptedModel(*map(_answer, scenario.model)),
        storage=MemoryStorage(dict(scenario.stored), max_bytes=20_000),
        http=_respond,
        secrets=scenario.secrets,
        apps={CALLEE: {"echo": lambda value: value, "fail": _fail, "crash": _crash}},
        config=scenario.config,
        locale=scenario.locale,
        declined=scenario.declined,
    )
    try:
        told: dict[str, Any] = {"output": call_app(app, scenario.action, ctx, **scenario.inputs)}
    except llmasos_sdk.AppError as error:
        told = {"error": str(error)}
    logs = "".join(f"{level.upper()} {line}\n" for level, line in ctx.fake.logs)
    return told | {"chunks": "".join(ctx.fake.chunks), "progress": [list(p) for p in ctx.fake.progress], "logs": logs}


def javascript_fakes(scenarios: Scenarios) -> list[dict[str, Any]]:
    """What each scenario gives with JavaScript's `FakeHost`, under Node.js."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("app.js", "fakes.mjs"):
            shutil.copy(HERE / file, folder / file)
        (folder / "package.json").write_text('{"type": "module"}')
        (folder / "node_modules" / "@llmasos").mkdir(parents=True)
        (folder / "node_modules" / "@llmasos" / "sdk").symlink_to(SDK)
        given = [dataclasses.asdict(placed(each, "http://server.test", "http://nobody.test")) for each in scenarios]
        done = subprocess.run(
            ["node", "fakes.mjs"], cwd=folder, input=json.dumps(given), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)


# The host


class EchoServer(BaseHTTPRequestHandler):
    """Returns what it gets, on `/echo`."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        found = self.path == "/echo"
        self.send_response(200 if found else 404)
        self.send_header("X-Seen", self.command)
        self.send_header("content-length", str(len(body) if found else 0))
        self.end_headers()
        self.wfile.write(body if found else b"")

    do_GET = do_POST = do_PUT = _answer  # noqa: N815 -- the names that http.server calls

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def echo_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), EchoServer) as httpd:
        Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


class EchoingProvider(ScriptedProvider):
    """Returns what it was asked, once its script says so."""

    echoes: bool = False

    def _next(self, messages: Any, optional_params: dict[str, Any]) -> ScriptedReply:
        reply = super()._next(messages, optional_params)
        return ScriptedReply((messages[-1]["content"],)) if self.echoes else reply

    def set(self, answers: list[Any]) -> None:
        self.echoes = answers == [{"echo": True}]
        self.replies = deque(_reply(each) for each in answers if not self.echoes) or deque([ScriptedReply()])


def _reply(given: Any) -> ScriptedReply:
    if isinstance(given, str):
        return ScriptedReply(tuple(re.findall(r"\S+\s*", given)))
    if "fails" in given:
        return ScriptedReply((), error=RuntimeError("the provider failed"))
    id_, name, arguments = given["tool"]
    function = {"name": name, "arguments": json.dumps(arguments)}
    tool = {"id": id_, "type": "function", "function": function}
    return ScriptedReply((), usage=(3, 0), finish_reason="tool_calls", tool_calls=(tool,))


@dataclass
class Code:
    """The conformance app, built."""

    kind: str
    digest: str
    path: Path
    manifest: Manifest


@dataclass
class Installed:
    """The app and its callee, as `Runnables`; `scenario` is the one that runs."""

    code: Code
    actions: dict[str, Any]
    server: str
    callees: FakeApps = field(default_factory=FakeApps)
    scenario: Any = None

    def runnable(self, workspace: str, app_id: str) -> Runnable:
        if app_id != APP:
            found = self.callees.runnable(workspace, app_id)
            return dataclasses.replace(found, program=dataclasses.replace(found.program, kind="fake"))
        declared = {permission.capability: permission for permission in self.code.manifest.permissions}
        places = {"hosts": (self.server, "http://127.0.0.1:1")}
        declared["http"] = declared["http"].model_copy(update=places)
        grants = {name: each for name, each in declared.items() if name not in self.scenario.declined}
        app = InstalledApp(APP, "1.0.0", "conformance", grants, frozenset(declared), self.scenario.config)
        capabilities = frozenset(declared) | BASELINE_CAPABILITIES
        program = Program(self.code.kind, self.code.digest, capabilities, "conformance")
        return Runnable(app, program, self.actions, InvocationLimits())

    def path(self, _found: Runnable) -> Path:
        return self.code.path


async def _echo(guest: Guest) -> Any:
    return guest.input["value"]


async def _fail_as(guest: Guest) -> Any:
    raise getattr(llmasos.errors, guest.input["kind"])("why")


async def _crash_as(_guest: Guest) -> Any:
    raise AppFailed("the app failed: no such thing")


def project(folder: Path, kind: str, source: str) -> Path:
    """The conformance app as a project of one kind."""
    folder.mkdir(parents=True)
    manifest = (HERE / "llmapp.toml").read_text()
    manifest = manifest.replace('kind = "wasm"\nsource = "app.py"', f'kind = "{kind}"\nsource = "{source}"')
    (folder / "llmapp.toml").write_text(manifest)
    for name in (source, "README.md"):
        shutil.copy(HERE / name, folder / name)
    return folder


async def built(folder: Path, kind: str, source: str) -> Code:
    """The conformance app, built as authors build."""
    opened = open_project(project(folder / "project", kind, source))
    code = folder / "code"
    code.mkdir()
    if kind == "python":
        native = build_native(opened.root, opened.manifest)
        files = {native.wheel_name: native.wheel, "requirements.txt": native.lock.encode()}
    else:
        files = {"app.wasm": await component_from_source(opened, folder)}
    for name, content in files.items():
        (code / name).write_bytes(content)
    path = code if kind == "python" else code / "app.wasm"
    return Code(kind, code_digest(files) if kind == "python" else _sha256(path), path, opened.manifest)


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


async def in_the_sandbox(
    scenarios: Scenarios, home: Path, folder: Path, kind: str, source: str
) -> list[dict[str, Any]]:
    """What each scenario gives in a runner, with every capability of a real host behind it."""
    code = await built(folder, kind, source)
    provider = EchoingProvider()
    callees = FakeApps()
    callees.add(CALLEE, echo=FakeAction(_echo), fail=FakeAction(_fail_as), crash=FakeAction(_crash_as))

    def gateway(*_: Any) -> Gateway:
        entries = (scripted_entry(), scripted_entry("scripted-embedding", kind="embedding"))
        return scripted_gateway(home, provider, *entries)

    with echo_server() as server:
        installed = Installed(code, {}, server, callees)
        parts = HostParts(runnables=lambda _: installed, runtimes={"fake": callees.runtime}, gateway=gateway)
        settings = Settings(home=home, runners=1, http_networks=(ip_network("127.0.0.0/8"),))
        async with Host.open(settings, parts) as host:
            program = Program(kind, code.digest, code.manifest.capabilities | BASELINE_CAPABILITIES, "conformance")
            runtime = host.runtimes.of(kind)
            await runtime.prepare(program, code.path)
            described = await runtime.describe(program)
            installed.actions = {action.name: action for action in parse_actions(described).actions}
            results = []
            for number, scenario in enumerate(scenarios):
                installed.scenario = placed(scenario, server, "http://127.0.0.1:1")
                provider.set(scenario.model)
                results.append(await _run(host, installed.scenario, f"user-{number}", home))
            return results


async def _run(host: Host, scenario: Any, user: str, home: Path) -> dict[str, Any]:
    principal = Principal("default", user, scenario.locale)
    area = Area(host.database, ("default", APP, user), 1 << 30)
    await asyncio.gather(*(area.put(key, Value(text, False, len(text))) for key, text in scenario.stored.items()))
    if scenario.secrets:
        with host.database.write() as session:
            for name in scenario.secrets:
                Secrets(home).set(session, SecretOwner("default", user, APP), name, "value")
    events: list[Event] = []

    async def emit(event: Event) -> None:
        events.append(event)

    started: list[Any] = []
    try:
        result = await host.actions.run(principal, APP, scenario.action, scenario.inputs, emit, on_start=started.append)
        told: dict[str, Any] = {"output": result.output}
    except LlmasosError as error:
        assert isinstance(error, AppFailed), repr(error)
        told = {"error": str(error)}
    return told | {
        "chunks": "".join(event.text for event in events if event.kind == "chunk"),
        "progress": [[event.fraction, event.text] for event in events if event.kind == "progress"],
        "logs": started[0].log,
    }
