"""Who may call the server: tokens, scopes, hosts and origins."""

import asyncio
from typing import Any

import httpx
import pytest

from llmasos_server.rest.guards import host_name, is_loopback

ECHO = "/api/v1/apps/acme/tool/actions/echo"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer nobody", "Basic YWxsOmFsbA==", "all"])
async def test_without_a_good_token_the_answer_is_401_with_the_cure(served: Any, header: str | None) -> None:
    async with httpx.AsyncClient(base_url=served.client.base_url) as client:
        answer = await client.post(
            ECHO, json={"text": "a"}, headers={} if header is None else {"authorization": header}
        )
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "llmasos tokens create" in answer.json()["detail"]


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_a_token_that_is_revoked_ends_what_runs_for_it(served: Any, accept: str) -> None:
    """11-S12: a stream outlived its token. SECURITY R3."""
    url = "/api/v1/apps/acme/tool/actions/wait"
    running = asyncio.create_task(served.client.post(url, headers={"accept": accept}))
    await served.until_started()
    served.app.state.authenticator.revoked.add("all")
    answer = await running
    assert '"code":"unauthenticated"' in answer.text
    assert served.ended == ["cancelled"]


async def test_a_token_in_the_query_is_no_token(served: Any) -> None:
    async with httpx.AsyncClient(base_url=served.client.base_url) as client:
        assert (await client.get("/api/v1/invocations?token=all&access_token=all")).status_code == 401


@pytest.mark.parametrize(
    ("token", "run", "read"), [("all", 200, 200), ("admin", 200, 200), ("run", 200, 403), ("read", 403, 200)]
)
async def test_a_scope_allows_what_it_names(served: Any, token: str, run: int, read: int) -> None:
    """SECURITY P5."""
    headers = {"authorization": f"Bearer {token}"}
    ran = await served.client.post(ECHO, json={"text": "a"}, headers=headers)
    listed = await served.client.get("/api/v1/invocations", headers=headers)
    assert (ran.status_code, listed.status_code) == (run, read)
    for answer in (ran, listed):
        if answer.status_code == 403:
            assert answer.json()["code"] == "scope-missing"
            assert "--scope" in answer.json()["detail"]


async def test_no_payload_names_its_user(served: Any) -> None:
    """SECURITY R1."""
    forged = {"x-user": "bob", "x-workspace": "other", "x-forwarded-user": "bob"}
    await served.client.post(ECHO, json={"text": "a"}, headers=forged)
    bob = {"authorization": "Bearer bob"}
    assert (await served.client.get("/api/v1/invocations", headers=bob)).json()["items"] == []


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:80", "", "127.0.0.1.attacker.example", "[::2]"])
async def test_a_name_that_was_rebound_to_this_machine_is_refused(served: Any, host: str) -> None:
    """SECURITY P4."""
    answer = await served.client.get("/healthz", headers={"host": host})
    assert answer.status_code in (400, 421)  # h11 itself refuses some
    if answer.status_code == 421:
        assert answer.json()["code"] == "host-not-allowed"


async def test_a_page_of_another_origin_is_refused(served: Any) -> None:
    """SECURITY P4."""
    own = str(served.client.base_url).rstrip("/")
    for origin, status in [("https://attacker.example", 403), ("null", 403), ("http://127.0.0.1:1", 403), (own, 200)]:
        answer = await served.client.post(ECHO, json={"text": "a"}, headers={"origin": origin})
        assert answer.status_code == status, origin


async def test_health_needs_no_token_and_metrics_count_by_route(served: Any) -> None:
    await served.client.post(ECHO, json={"text": "a"})
    await served.client.get("/api/v1/no/such/thing/" + "x" * 50)
    async with httpx.AsyncClient(base_url=served.client.base_url) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).json() == {"status": "ok"}
        text = (await client.get("/metrics")).text
    assert 'route="/api/v1/apps/{publisher}/{name}/actions/{action}",status="200"' in text
    assert "x" * 50 not in text
    assert "llmasos_active_runs 0.0" in text


@pytest.mark.parametrize(
    ("host", "token", "status"),
    [
        ("127.0.0.1", "", 200),
        ("::1", "", 200),
        ("192.0.2.7", "", 401),
        ("192.0.2.7", "read", 200),
        ("192.0.2.7", "run", 403),
    ],
)
async def test_metrics_are_for_this_machine_or_for_a_token(served: Any, host: str, token: str, status: int) -> None:
    """11-42."""
    transport = httpx.ASGITransport(app=served.app, client=(host, 123))
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
        assert (await client.get("/metrics")).status_code == status


@pytest.mark.parametrize(
    ("authority", "name"),
    [("a:80", "a"), ("A", "a"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("", ""), ("127.0.0.1:8765", "127.0.0.1")],
)
def test_the_name_in_an_authority(authority: str, name: str) -> None:
    assert host_name(authority) == name


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
