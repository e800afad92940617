"""Pictures by address: fetched under the app's own grant for http, and sent to the model as data."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from loopback import NoSecrets, QuietHandler, serving
from sqlmodel import select

from llmasos.bundles.manifest import HttpPermission, LocalisedText, ModelPermission
from llmasos.capabilities.http import HttpCapability
from llmasos.capabilities.model import ModelCapability
from llmasos.database.engine import Database
from llmasos.errors import Denied, Invalid
from llmasos.gateway.testing import ScriptedProvider, scripted_gateway
from llmasos.kernel.invocation import InstalledApp, Principal
from llmasos.kernel.tables import AuditEntry
from llmasos.testing import SmallHost, small_host

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels" * 20
REASON = LocalisedText(en="To test.")


class Server(QuietHandler):
    def do_GET(self) -> None:  # noqa: N802 - the name that `http.server` calls
        body = {"/cat.png": PNG, "/page": b"<html>cat</html>"}.get(self.path, b"")
        self.send_response(200 if body else 404)
        self.send_header("content-type", "image/png")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(Server) as address:
        yield address


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider()


@pytest.fixture
async def host(database: Database, tmp_path: Path, provider: ScriptedProvider) -> AsyncIterator[SmallHost]:
    async def send(*call):
        return await host.kernel.call(*call)

    model = ModelCapability(scripted_gateway(tmp_path, provider), send)
    http = HttpCapability(NoSecrets(), (ip_network("127.0.0.0/8"),))
    async with small_host(database, model, http) as host:
        yield host


async def ask(host: SmallHost, *urls: str, hosts: tuple[str, ...] = (), function: str = "generate") -> None:
    grants: dict = {"model": ModelPermission(capability="model", tiers=("fast",), reason=REASON)}
    if hosts:
        grants["http"] = HttpPermission(capability="http", hosts=hosts, methods=("GET",), reason=REASON)
    app = InstalledApp("acme/one", "1.0", "i1", grants, frozenset(grants))
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls]
    request = json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, *parts]}]})
    async with host.invocations.open(Principal(), app, "act") as invocation:
        await host.guest(invocation, "model", function, [request])


@pytest.mark.parametrize("function", ["generate", "open"])
async def test_a_granted_address_reaches_the_model_as_data(host, provider, server, database, function):
    """11-S5: a URL needs an http grant, is fetched by the http capability and inlined."""
    await ask(host, f"{server}/cat.png", hosts=(server,), function=function)
    _text, part = provider.requests[0]["messages"][0]["content"]
    assert part["image_url"] == {"url": f"data:image/png;base64,{b64encode(PNG).decode()}", "detail": "low"}
    with database.read() as session:
        assert "http.request" in [entry.event for entry in session.exec(select(AuditEntry))]


@pytest.mark.parametrize("hosts", [(), ("https://example.com",)])
async def test_an_address_without_a_grant_is_denied_and_nothing_is_sent(host, provider, server, hosts):
    """11-S5: a model-only app reached the internet. SECURITY L3."""
    with pytest.raises(Denied):
        await ask(host, f"{server}/cat.png", hosts=hosts)
    assert provider.requests == []


async def test_a_private_address_is_refused_though_every_server_is_granted(host, provider):
    """11-S5. SECURITY L3."""
    with pytest.raises(Denied):
        await ask(host, "http://169.254.169.254/latest/meta-data", hosts=("*",))
    assert provider.requests == []


@pytest.mark.parametrize(
    ("paths", "said"),
    [(["/page"], "returned no"), (["/missing"], "answered 404"), ([f"/cat.png?{n}" for n in range(9)], "At most 8")],
)
async def test_what_is_no_picture_is_refused(host, provider, server, paths, said):
    with pytest.raises(Invalid, match=said):
        await ask(host, *(server + path for path in paths), hosts=(server,))
    assert provider.requests == []
