"""Metering of requests: each that was sent is charged, whatever the response."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network

import pytest
from loopback import NoSecrets, QuietHandler, serving
from sqlmodel import select

from llmasos.bundles.manifest import HttpPermission, LocalisedText
from llmasos.capabilities.http import HttpCapability
from llmasos.database.engine import Database
from llmasos.errors import LlmasosError, QuotaExceeded
from llmasos.kernel.invocation import InstalledApp, Principal
from llmasos.kernel.tables import AuditEntry
from llmasos.quotas import service
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.service import QuotaName
from llmasos.quotas.tables import LedgerWindow
from llmasos.testing import SmallHost, small_host

LIMIT = 20


class Server(QuietHandler):
    def do_GET(self) -> None:  # noqa: N802 - the name that `http.server` calls
        headers = {"/zipped": {"content-encoding": "gzip"}, "/elsewhere": {"location": "http://elsewhere.invalid/"}}
        body = b"x" * 2000 if self.path == "/large" else b"ok"
        self.send_response(302 if self.path in {"/elsewhere", "/loop"} else 200)
        for name, value in {**headers.get(self.path, {}), "content-length": str(len(body))}.items():
            self.send_header(name, value)
        if self.path == "/loop":
            self.send_header("location", "/loop")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(Server) as address:
        yield address


@pytest.fixture
async def host(database: Database) -> AsyncIterator[SmallHost]:
    with database.write() as session:
        name = QuotaName("default", Scope.APP, "acme/one", Meter.REQUESTS, Window.DAY)
        service.set_quota(session, lambda event, detail: None, name, LIMIT)
    async with small_host(database, HttpCapability(NoSecrets(), (ip_network("127.0.0.0/8"),))) as host:
        yield host


async def request(host: SmallHost, granted: str, url: str) -> str:
    grant = HttpPermission(
        capability="http",
        hosts=(granted,),
        methods=("GET",),
        max_response_bytes=1000,
        reason=LocalisedText(en="To test."),
    )
    app = InstalledApp("acme/one", "1.0", "i1", {"http": grant}, frozenset({"http"}))
    async with host.invocations.open(Principal(), app, "act") as invocation:
        try:
            await host.guest(invocation, "http", "request", [json.dumps({"method": "GET", "url": url})])
        except LlmasosError as error:
            return error.code
    return "ok"


def charged(database: Database) -> int:
    with database.read() as session:
        row = session.exec(select(LedgerWindow)).one()
        assert row.reserved == 0
        return row.used


@pytest.mark.parametrize(
    ("path", "code", "requests"),
    [
        ("/fine", "ok", 1),
        ("/large", "resource-limit", 1),
        ("/zipped", "unavailable", 1),
        ("/elsewhere", "denied", 1),
        ("/loop", "invalid", 6),
    ],
)
async def test_what_was_sent_is_charged_whatever_came_back(
    host: SmallHost, database: Database, server: str, path: str, code: str, requests: int
) -> None:
    """10-4: a call that failed was settled as nothing, so that such a server gave unlimited requests."""
    assert await request(host, server, server + path) == code
    assert charged(database) == requests


async def test_a_server_that_makes_every_call_fail_gives_no_more_requests_than_the_quota(
    host: SmallHost, database: Database, server: str
) -> None:
    codes = [await request(host, server, f"{server}/large") for _ in range(LIMIT)]
    # A call reserves the redirects that it may follow, and is refused when those do not fit.
    assert codes.count(QuotaExceeded.code) >= 1
    assert charged(database) <= LIMIT


async def test_a_refused_address_is_audited_once_and_not_charged(host: SmallHost, database: Database) -> None:
    """10-5: two lines."""
    assert await request(host, "http://10.0.0.1", "http://10.0.0.1/") == "denied"
    assert charged(database) == 0
    with database.read() as session:
        lines = [(row.event, row.outcome) for row in session.exec(select(AuditEntry).order_by(AuditEntry.seq))]
    assert lines == [("http.request", "denied"), ("invocation", "ok")]
