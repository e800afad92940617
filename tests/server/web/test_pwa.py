"""The pages as an app of a phone or computer; and that each request has a name."""

import json
import re
import struct
from typing import Any

Pages = Any


def test_the_pages_can_be_installed(pages: Pages) -> None:
    """12-10: manifest and icons, for anybody who is not signed in too."""
    browser = pages.browser()
    assert '<link rel="manifest" href="/app.webmanifest">' in browser.get("/sign-in").text
    sent = browser.get("/app.webmanifest")
    assert sent.headers["content-type"] == "application/manifest+json"
    manifest = json.loads(sent.text)
    assert (manifest["start_url"], manifest["scope"], manifest["display"]) == ("/", "/", "standalone")
    assert {icon["purpose"] for icon in manifest["icons"]} == {"any", "maskable"}
    for icon in manifest["icons"]:
        picture = browser.get(icon["src"])
        assert picture.headers["content-type"] == "image/png"
        width, height = struct.unpack(">II", picture.content[16:24])
        assert icon["sizes"] == f"{width}x{height}"


def test_the_offline_page_is_kept_with_what_it_loads_and_without_anybodys_name(pages: Pages) -> None:
    """12-10."""
    browser = pages.browser()
    script = browser.get("/service-worker.js")
    assert script.headers["content-type"].startswith("text/javascript")
    kept = json.loads(re.match(r"const KEPT = (\[.*?\]);", script.text)[1])
    assert kept[0] == "/offline"
    for path in kept:
        assert browser.get(path).status_code == 200
    page = browser.get("/offline").text
    assert "llmasos serve" in page
    assert "form_token" not in page
    for path in re.findall(r'(?:href|src)="(/static/[^"#]+\.(?:css|svg))', page):
        assert path in kept


def test_each_response_names_its_request(pages: Pages) -> None:
    """12-1: request ids; a proxy's own is kept if it is one."""
    browser = pages.browser()
    names = {browser.get(path).headers["x-request-id"] for path in ("/healthz", "/healthz", "/sign-in", "/none")}
    assert len(names) == 4
    assert browser.get("/healthz", **{"x-request-id": "abc-123_DEF"}).headers["x-request-id"] == "abc-123_DEF"
    for odd in ("short", "a" * 65, "with space", 'quo"te123', "\x1b[31mred", "é" * 9):
        client = browser.client
        sent = client.get("/healthz", headers={"x-request-id": odd.encode()})
        assert re.fullmatch("[0-9a-f]{16}", sent.headers["x-request-id"])
