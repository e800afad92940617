"""For each capability: it works when granted, and is denied when it is not declared, or declared and not granted."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from llmasos.bundles.manifest import (
    AppsPermission,
    HttpPermission,
    LocalisedText,
    ModelPermission,
    Permission,
    SecretPlace,
    SecretsPermission,
    StoragePermission,
)
from llmasos.capabilities.apps import AppsCapability
from llmasos.capabilities.http import HttpCapability
from llmasos.capabilities.model import ModelCapability
from llmasos.capabilities.secrets import SecretsCapability, UserSecrets
from llmasos.capabilities.storage import StorageCapability
from llmasos.database.engine import Database
from llmasos.errors import PermissionNotDeclared, PermissionNotGranted
from llmasos.gateway.testing import ScriptedProvider, scripted_gateway
from llmasos.kernel import grants
from llmasos.kernel.invocation import EventSink, InstalledApp, Invocation, Principal
from llmasos.secrets import SecretOwner, Secrets
from llmasos.testing import SmallHost, small_host

ME = Principal()
WHY = LocalisedText(en="To test.")


@dataclass(frozen=True)
class Example:
    """A call that the permission allows, and how its answer begins."""

    permission: Permission
    function: str
    arguments: list[Any]
    answer: str

    @property
    def capability(self) -> str:
        return self.permission.capability


@dataclass(frozen=True)
class Result:
    output: object


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Any:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as httpd:
        Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.fixture
def examples(server: str) -> Mapping[str, Example]:
    place = SecretPlace(name="token", host="https://api.example.com", header="authorization")
    listed = (
        Example(
            ModelPermission(capability="model", tiers=("fast",), reason=WHY),
            "generate",
            [json.dumps({"messages": [{"role": "user", "content": "hello"}]})],
            '{"id":',
        ),
        Example(StoragePermission(capability="storage", reason=WHY), "put", ["key", "value", False], "1"),
        Example(
            HttpPermission(capability="http", hosts=(server,), methods=("GET",), reason=WHY),
            "request",
            [json.dumps({"method": "GET", "url": server})],
            '{"status":200',
        ),
        Example(SecretsPermission(capability="secrets", secrets=(place,), reason=WHY), "names", [], "['token']"),
        Example(
            AppsPermission(capability="apps", apps=("acme/callee",), reason=WHY),
            "call",
            ["acme/callee", "act", "{}"],
            '"called"',
        ),
    )
    return {each.capability: each for each in listed}


@pytest.fixture
async def host(database: Database, tmp_path: Path) -> AsyncIterator[SmallHost]:
    secrets = Secrets(tmp_path)
    with database.write() as session:
        secrets.set(session, SecretOwner(ME.workspace, ME.user, "acme/one"), "token", "value")
    source = UserSecrets(database, secrets)

    async def callee(
        principal: Principal, app: str, action: str, value: Any, emit: EventSink, *, parent: Invocation | None
    ) -> Result:
        return Result("called")

    async with small_host(
        database,
        ModelCapability(scripted_gateway(tmp_path, ScriptedProvider())),
        StorageCapability(database),
        HttpCapability(source, (ip_network("127.0.0.0/8"),)),
        SecretsCapability(source),
        AppsCapability(callee, 8),
    ) as host:
        yield host


async def call(host: SmallHost, example: Example, granted: bool, declared: bool) -> str:
    grants = {example.capability: example.permission} if granted else {}
    app = InstalledApp("acme/one", "1.0", "i1", grants, frozenset({example.capability} if declared else ()))
    async with host.invocations.open(ME, app, "act") as invocation:
        return str(await host.guest(invocation, example.capability, example.function, example.arguments))


CAPABILITIES = ["model", "storage", "http", "secrets", "apps"]


def test_the_examples_name_every_capability_that_a_manifest_can_declare(examples: Mapping[str, Example]) -> None:
    assert set(examples) == set(CAPABILITIES) == set(grants._LINES)


@pytest.mark.parametrize("name", CAPABILITIES)
async def test_it_works_when_granted(host: SmallHost, examples: Mapping[str, Example], name: str) -> None:
    assert (await call(host, examples[name], granted=True, declared=True)).startswith(examples[name].answer)


@pytest.mark.parametrize("name", CAPABILITIES)
async def test_it_is_denied_when_not_declared(host: SmallHost, examples: Mapping[str, Example], name: str) -> None:
    """SECURITY R2."""
    with pytest.raises(PermissionNotDeclared, match=f'capability = "{name}"'):
        await call(host, examples[name], granted=False, declared=False)


@pytest.mark.parametrize("name", CAPABILITIES)
async def test_it_is_denied_when_declared_and_not_granted(
    host: SmallHost, examples: Mapping[str, Example], name: str
) -> None:
    """SECURITY R2."""
    with pytest.raises(PermissionNotGranted):
        await call(host, examples[name], granted=False, declared=True)
