"""Consent, installing and upgrading by pages: what is asked, what is bound, and what survives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from tests.server.web.store_pages import (
    HTTP,
    STORAGE,
    WaitingRuntime,
    config_of,
    ended,
    fields_of,
    granted,
    install,
    publish,
    send,
    version_of,
)

from llmasos.bundles.testing import MODEL_PERMISSION
from llmasos.errors import Unavailable
from llmasos.host import HostParts
from llmasos.i18n import _
from llmasos.installs import policy
from llmasos.installs.policy import Policy
from llmasos.installs.tables import InstallRequest
from llmasos.kernel.invocation import Principal
from llmasos.secrets import SecretOwner, Secrets
from llmasos_server.accounts.people import Role

Pages = Any

CONFIG = """
[config.tone]
type = "string"
enum = ["plain", "warm"]
default = "plain"
title.en = "Tone"
[config.words]
type = "integer"
title.en = "Words"
"""
SECRETS = """
[[permissions]]
capability = "http"
hosts = ["https://api.example.com"]
reason.en = "Asks."
[[permissions]]
capability = "secrets"
reason.en = "Signs in."
[[permissions.secrets]]
name = "token"
host = "https://api.example.com"
header = "authorization"
"""


@pytest.fixture
def runtime() -> Iterator[WaitingRuntime]:
    made = WaitingRuntime()
    made.free.set()
    yield made
    made.free.set()


@pytest.fixture
def parts(runtime: WaitingRuntime) -> HostParts:
    return HostParts(runtimes={"wasm": lambda _serve: runtime})


def test_an_app_is_installed_by_reading_and_agreeing(pages: Pages, tmp_path: Path) -> None:
    """12-6: consent, with the config form."""
    publish(pages, tmp_path, "acme/hello", extra=MODEL_PERMISSION + STORAGE + CONFIG)
    browser = pages.owner()
    page = browser.get("/store/acme/hello/install").text
    assert "Ask language models (fast)" in page
    assert "Remembers." in page
    assert granted(pages, "acme/hello") is None
    done = install(browser, "acme/hello", **{"config0/tone": "warm", "config0/words": "7"})
    assert "Hello is ready" in done
    assert granted(pages, "acme/hello") == {"model", "storage"}
    assert config_of(pages, "acme/hello") == {"tone": "warm", "words": 7}
    assert browser.get("/store/acme/hello/install").headers["location"] == "/store/acme/hello"


@pytest.mark.parametrize("words", ["", "many", "1.5"])
def test_a_setting_that_is_wrong_is_said_at_its_field_and_nothing_is_installed(
    pages: Pages, tmp_path: Path, words: str
) -> None:
    publish(pages, tmp_path, "acme/hello", extra=CONFIG)
    browser = pages.owner()
    page = browser.get("/store/acme/hello/install").text
    sent = send(browser, "/store/acme/hello/install", page, **{"config0/tone": "plain", "config0/words": words})
    assert sent.status_code == 422
    assert 'id="config0/words-fault"' in sent.text
    assert granted(pages, "acme/hello") is None


def test_what_is_optional_may_be_left_out(pages: Pages, tmp_path: Path) -> None:
    """12-6: optional switches."""
    optional = MODEL_PERMISSION.replace('tiers = ["fast"]', 'tiers = ["fast"]\noptional = true')
    publish(pages, tmp_path, "acme/hello", extra=optional + STORAGE)
    publish(pages, tmp_path, "acme/other", extra=optional + STORAGE)
    browser = pages.owner()
    install(browser, "acme/hello")
    install(browser, "acme/other", allow=["acme/other model", "acme/other http"])
    assert granted(pages, "acme/hello") == {"storage"}
    assert granted(pages, "acme/other") == {"model", "storage"}


@pytest.mark.parametrize(("typed", "goes"), [("", False), ("acme", False), ("acme/spy", True), (" Acme/Spy ", True)])
def test_a_red_combination_needs_a_typed_confirmation(pages: Pages, tmp_path: Path, typed: str, goes: bool) -> None:
    """12-6."""
    publish(pages, tmp_path, "acme/spy", extra=HTTP + STORAGE)
    browser = pages.owner()
    page = browser.get("/store/acme/spy/install").text
    assert "could make it give your data away" in page
    sent = send(browser, "/store/acme/spy/install", page, confirm=typed)
    assert sent.status_code == (303 if goes else 422)
    if goes:
        ended(browser, "acme/spy")
    assert (granted(pages, "acme/spy") is not None) is goes


def test_consent_is_bound_to_the_bytes_that_were_read(pages: Pages, tmp_path: Path) -> None:
    """12-6: a release that came while somebody read is not what they agreed to."""
    publish(pages, tmp_path, "acme/hello", extra=MODEL_PERMISSION)
    browser = pages.owner()
    page = browser.get("/store/acme/hello/install").text
    publish(pages, tmp_path, "acme/hello", "1.0.1", extra=MODEL_PERMISSION + STORAGE)
    sent = send(browser, "/store/acme/hello/install", page)
    assert sent.status_code == 422
    assert "Read again what it asks for" in sent.text
    assert granted(pages, "acme/hello") is None
    assert fields_of(sent.text)["bound"] != fields_of(page)["bound"]
    assert send(browser, "/store/acme/hello/install", sent.text).status_code == 303
    ended(browser, "acme/hello")
    assert granted(pages, "acme/hello") == {"model", "storage"}


def test_an_app_that_it_needs_asks_on_the_same_page(pages: Pages, tmp_path: Path) -> None:
    publish(pages, tmp_path, "acme/base", extra=STORAGE)
    publish(pages, tmp_path, "acme/top", extra='[dependencies]\n"acme/base" = ">=1"\n')
    browser = pages.owner()
    page = browser.get("/store/acme/top/install").text
    assert "acme/base 1.0.0" in page
    assert "needs it" in page
    install(browser, "acme/top")
    assert granted(pages, "acme/base") == {"storage"}
    assert granted(pages, "acme/top") == set()


def test_a_secret_is_asked_for_kept_encrypted_and_not_shown_again(pages: Pages, tmp_path: Path) -> None:
    """12-6: secrets it needs, asked here."""
    publish(pages, tmp_path, "acme/client", extra=SECRETS)
    browser = pages.owner()
    page = browser.get("/store/acme/client/install").text
    assert "It is sent to https://api.example.com alone" in page
    install(browser, "acme/client", **{"secret/acme/client/token": "s3cret", "secret/acme/other/token": "no"})
    secrets = Secrets(pages.app.state.host.settings.home)
    with pages.database.read() as session:
        assert secrets.value(session, SecretOwner("default", "local", "acme/client"), "token") == "s3cret"
        assert secrets.listed(session, "default", "local") == [("acme/client", "token")]
    assert "s3cret" not in browser.get("/apps/acme/client/settings").text


def test_an_upgrade_asks_only_for_what_is_new_and_the_old_release_runs_until_then(pages: Pages, tmp_path: Path) -> None:
    """12-6."""
    publish(pages, tmp_path, "acme/hello", extra=STORAGE)
    browser = pages.owner()
    install(browser, "acme/hello")
    publish(pages, tmp_path, "acme/hello", "1.1.0", extra=STORAGE + MODEL_PERMISSION)
    assert "/store/acme/hello/upgrade" in browser.get("/store/acme/hello").text
    page = browser.get("/store/acme/hello/upgrade").text
    assert "1.0.0 goes on running" in page
    assert "Ask language models" in page
    assert "Remembers." not in page
    assert version_of(pages, "acme/hello") == "1.0.0"
    install(browser, "acme/hello", "upgrade")
    assert version_of(pages, "acme/hello") == "1.1.0"
    assert granted(pages, "acme/hello") == {"storage", "model"}


def test_a_long_preparation_survives_a_reload_and_is_seen_by_others(
    pages: Pages, tmp_path: Path, runtime: WaitingRuntime
) -> None:
    """12-6: progress, and a reload in the middle; a second press of the button begins nothing."""
    runtime.free.clear()
    publish(pages, tmp_path, "acme/hello")
    pages.member("vera", Role.VIEWER)
    browser, other = pages.owner(), pages.signed_in("vera")
    page = browser.get("/store/acme/hello/install").text
    for _press in range(2):
        assert send(browser, "/store/acme/hello/install", page).headers["location"] == "/store/acme/hello/progress"
    for each in (browser, browser, other):
        assert "data-poll" in each.get("/store/acme/hello/progress").text
    runtime.free.set()
    assert "Hello is ready" in ended(browser, "acme/hello")
    assert len(runtime.prepared) == 1


def test_a_failed_preparation_says_why_and_changes_nothing(
    pages: Pages, tmp_path: Path, runtime: WaitingRuntime
) -> None:
    runtime.failure = Unavailable(_("The disk is <full>."))
    publish(pages, tmp_path, "acme/hello")
    shown = install(pages.owner(), "acme/hello")
    assert "Hello was not changed" in shown
    assert "The disk is &lt;full&gt;." in shown
    assert granted(pages, "acme/hello") is None


def test_who_may_not_install_cannot_and_neither_can_another_site(pages: Pages, tmp_path: Path) -> None:
    """12-2: the role on every page. 12-6: CSRF."""
    publish(pages, tmp_path, "acme/hello")
    pages.member("vera", Role.VIEWER)
    owner, viewer = pages.owner(), pages.signed_in("vera")
    page = owner.get("/store/acme/hello/install").text
    assert viewer.get("/store/acme/hello/install").status_code == 403
    assert send(viewer, "/store/acme/hello/install", page).status_code == 403
    assert send(owner, "/store/acme/hello/install", "").status_code == 403
    assert pages.browser().get("/store/acme/hello/install").status_code == 303
    assert granted(pages, "acme/hello") is None


def test_what_the_policy_keeps_for_administrators_waits_for_one(pages: Pages, tmp_path: Path) -> None:
    """12-3: a member's install then waits as a request; dependencies obey it too."""
    publish(pages, tmp_path, "acme/base", extra=MODEL_PERMISSION)
    publish(pages, tmp_path, "acme/top", extra='[dependencies]\n"acme/base" = ">=1"\n')
    with pages.database.write() as session:
        policy.set_policy(session, Principal(), Policy(approve_capabilities=("model",)))
    pages.member("max", Role.MEMBER)
    shown = install(pages.signed_in("max"), "acme/top")
    assert "Hello waits for an administrator" in shown
    assert granted(pages, "acme/top") is None
    with pages.database.read() as session:
        assert [each.app_id for each in session.exec(select(InstallRequest))] == ["acme/top"]
    install(pages.owner(), "acme/top")
    assert granted(pages, "acme/base") == {"model"}


def test_where_administrators_alone_install_a_member_is_refused_before_reading(pages: Pages, tmp_path: Path) -> None:
    """12-3: who may install."""
    publish(pages, tmp_path, "acme/hello")
    with pages.database.write() as session:
        policy.set_policy(session, Principal(), Policy(who_installs="administrators"))
    pages.member("max", Role.MEMBER)
    refused = pages.signed_in("max").get("/store/acme/hello/install")
    assert refused.status_code == 403
    assert "ask one of them" in refused.text
    assert pages.owner().get("/store/acme/hello/install").status_code == 200


def test_the_progress_of_nothing_leads_to_the_app(pages: Pages, tmp_path: Path) -> None:
    publish(pages, tmp_path, "acme/hello")
    assert pages.owner().get("/store/acme/hello/progress").headers["location"] == "/store/acme/hello"
