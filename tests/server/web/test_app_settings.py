"""The settings of an installed app: permissions, form, stored data, releases and removal."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.server.web.store_pages import (
    STORAGE,
    WaitingRuntime,
    config_of,
    granted,
    install,
    publish,
    send,
    version_of,
)

from llmasos.bundles.testing import MODEL_PERMISSION
from llmasos.capabilities.tables import StoredTotal, StoredValue
from llmasos.host import HostParts
from llmasos.installs import repository
from llmasos.kernel.audit import verify
from llmasos_server.accounts.people import Role

Pages = Any

CONFIG = """
[config.tone]
type = "string"
enum = ["plain", "warm"]
default = "plain"
title.en = "Tone <i>"
"""
SETTINGS = "/apps/acme/hello/settings"


@pytest.fixture
def parts() -> Iterator[HostParts]:
    runtime = WaitingRuntime()
    runtime.free.set()
    yield HostParts(runtimes={"wasm": lambda _serve: runtime})


def installed(pages: Pages, folder: Path, extra: str = MODEL_PERMISSION + STORAGE + CONFIG) -> Any:
    """The owner's browser, on the settings of an app that is installed."""
    publish(pages, folder, "acme/hello", extra=extra)
    browser = pages.owner()
    install(browser, "acme/hello", **{"config0/tone": "plain"})
    browser.get(SETTINGS)
    return browser


def change(browser: Any, what: str, **fields: Any) -> Any:
    return send(browser, f"{SETTINGS}/{what}", browser.get(SETTINGS).text, **fields)


def store(pages: Pages, user: str, key: str, version: int = 3) -> None:
    owner = {"workspace_id": "default", "app_id": "acme/hello", "user_id": user}
    with pages.database.write() as session:
        session.add(
            StoredValue(
                **owner, key=key, value="x" * 2046, version=version, size_bytes=2048, updated_at=datetime.now(UTC)
            )
        )
        session.merge(StoredTotal(**owner, size_bytes=2048))


def test_a_permission_is_taken_back_at_once_and_can_be_given_again(pages: Pages, tmp_path: Path) -> None:
    """12-6: permissions with switches; taking one back works at once."""
    browser = installed(pages, tmp_path)
    assert 'aria-checked="true"' in browser.last.text
    assert change(browser, "revoke", capability="model").headers["location"] == f"{SETTINGS}?done=revoke"
    assert granted(pages, "acme/hello") == {"storage"}
    shown = browser.get(f"{SETTINGS}?done=revoke").text
    assert "not allowed" in shown
    assert 'href="/store/acme/hello/install"' in shown
    install(browser, "acme/hello")
    assert granted(pages, "acme/hello") == {"storage", "model"}


def test_one_server_is_taken_out_of_a_permission(pages: Pages, tmp_path: Path) -> None:
    """12-4, 12-6: a single host out of an http grant."""
    http = """
[[permissions]]
capability = "http"
hosts = ["https://a.example", "https://b.example"]
reason.en = "Asks."
"""
    browser = installed(pages, tmp_path, http + CONFIG)
    assert change(browser, "revoke-host", host="https://c.example").status_code == 404
    assert change(browser, "revoke-host", host="https://a.example").status_code == 303
    shown = browser.get(SETTINGS).text
    assert "https://a.example" not in shown
    assert "Read from b.example" in shown
    assert granted(pages, "acme/hello") == {"http"}


def test_two_pages_that_take_back_the_same_permission_take_it_back_once(pages: Pages, tmp_path: Path) -> None:
    """12-2: two tabs changing the same grant."""
    browser = installed(pages, tmp_path)
    page = browser.last.text
    first, second = (send(browser, f"{SETTINGS}/revoke", page, capability="model") for _tab in range(2))
    assert (first.status_code, second.status_code) == (303, 404)
    assert granted(pages, "acme/hello") == {"storage"}


def test_settings_are_saved_or_refused_at_their_field(pages: Pages, tmp_path: Path) -> None:
    browser = installed(pages, tmp_path)
    assert "Tone &lt;i&gt;" in browser.last.text
    assert change(browser, "config", **{"in/tone": "warm"}).status_code == 303
    assert config_of(pages, "acme/hello") == {"tone": "warm"}
    refused = change(browser, "config", **{"in/tone": "<b>loud"})
    assert refused.status_code == 422
    assert 'id="in/tone-fault"' in refused.text
    assert "<b>loud" not in refused.text
    assert config_of(pages, "acme/hello") == {"tone": "warm"}


def test_one_deletes_what_an_app_keeps_for_oneself(pages: Pages, tmp_path: Path) -> None:
    """12-6: stored data (size, delete)."""
    browser = installed(pages, tmp_path)
    store(pages, "local", "a")
    store(pages, "ann", "b")
    assert "1 value, 2 KiB" in browser.get(SETTINGS).text
    assert change(browser, "delete-data").status_code == 303
    assert "Nothing yet." in browser.get(SETTINGS).text
    with pages.database.read() as session:
        assert repository.count_stored_values(session, "default", "acme/hello") == 1
        total = session.get(StoredTotal, ("default", "acme/hello", "local"))
        # A run that read version 3 must not overwrite what is written from now on.
        assert (total.size_bytes, total.deleted_version) == (0, 3)
        assert verify(session, "default").intact


def test_one_goes_back_to_the_release_before(pages: Pages, tmp_path: Path) -> None:
    browser = installed(pages, tmp_path)
    publish(pages, tmp_path, "acme/hello", "1.1.0", extra=MODEL_PERMISSION + STORAGE + CONFIG)
    assert "Upgrade to 1.1.0" in browser.get(SETTINGS).text
    install(browser, "acme/hello", "upgrade")
    assert "Go back to 1.0.0" in browser.get(SETTINGS).text
    assert change(browser, "rollback").status_code == 303
    assert version_of(pages, "acme/hello") == "1.0.0"
    assert change(browser, "rollback").status_code == 404


@pytest.mark.parametrize(("data", "left"), [("keep", 1), ("delete", 0)])
def test_an_app_is_removed_with_or_without_its_data(pages: Pages, tmp_path: Path, data: str, left: int) -> None:
    """12-6: remove."""
    browser = installed(pages, tmp_path)
    store(pages, "local", "a")
    assert change(browser, "remove", data=data).headers["location"] == "/store/acme/hello"
    assert granted(pages, "acme/hello") is None
    with pages.database.read() as session:
        assert repository.count_stored_values(session, "default", "acme/hello") == left
    assert browser.get(SETTINGS).status_code == 404


def test_an_app_that_another_needs_is_not_removed(pages: Pages, tmp_path: Path) -> None:
    browser = installed(pages, tmp_path)
    publish(pages, tmp_path, "acme/top", extra='[dependencies]\n"acme/hello" = ">=1"\n')
    install(browser, "acme/top")
    refused = change(browser, "remove", data="keep")
    assert refused.status_code == 409
    assert "acme/top depends on acme/hello" in refused.text
    assert granted(pages, "acme/hello") is not None


CHANGES = [
    ("revoke", {"capability": "model"}),
    ("revoke-host", {"host": "https://a.example"}),
    ("config", {"in/tone": "warm"}),
    ("delete-data", {}),
    ("remove", {"data": "keep"}),
    ("rollback", {}),
    ("secret", {"name": "token", "value": "x"}),
    ("remove-secret", {"name": "token"}),
]


def test_no_change_is_made_by_a_viewer_another_site_or_a_stranger(pages: Pages, tmp_path: Path) -> None:
    """12-2: roles; 12-6: CSRF."""
    owner = installed(pages, tmp_path)
    pages.member("vera", Role.VIEWER)
    viewer, stranger = pages.signed_in("vera"), pages.browser()
    page = viewer.get(SETTINGS).text
    assert "<button" not in page.partition('<main id="page">')[2]
    for what, fields in CHANGES:
        assert send(viewer, f"{SETTINGS}/{what}", page, **fields).status_code == 403
        assert send(owner, f"{SETTINGS}/{what}", "", **fields).status_code == 403
        assert send(stranger, f"{SETTINGS}/{what}", page, **fields).status_code == 303
    assert granted(pages, "acme/hello") == {"model", "storage"}
    assert config_of(pages, "acme/hello") == {"tone": "plain"}


def test_a_member_cannot_delete_what_others_keep(pages: Pages, tmp_path: Path) -> None:
    installed(pages, tmp_path)
    store(pages, "local", "a")
    pages.member("max", Role.MEMBER)
    member = pages.signed_in("max")
    assert 'value="delete"' not in member.get(SETTINGS).text
    assert change(member, "remove", data="delete").status_code == 403
    assert granted(pages, "acme/hello") is not None


def test_an_app_that_is_not_installed_here_is_not_there(pages: Pages, tmp_path: Path) -> None:
    """12-2: "not yours" answers as "not there"."""
    browser = installed(pages, tmp_path)
    page = browser.last.text
    publish(pages, tmp_path, "acme/other")
    for app in ("acme/other", "acme/none"):
        assert browser.get(f"/apps/{app}/settings").status_code == 404
        for what, fields in CHANGES:
            assert send(browser, f"/apps/{app}/settings/{what}", page, **fields).status_code == 404
    assert send(browser, f"{SETTINGS}/secret", page, name="token", value="x").status_code == 404
    assert send(browser, f"{SETTINGS}/explode", page).status_code == 422
