"""Finding apps: the store's shelves, its search, and the page of an app."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.server.web.store_pages import HTTP, STORAGE, publish

from llmasos.bundles.testing import MODEL_PERMISSION
from llmasos_server.accounts.people import Role

Pages = Any

EVIL = "</title><script>alert(1)</script>"


def test_the_shelves_hold_what_is_new_and_what_needs_nothing_else(pages: Pages, tmp_path: Path) -> None:
    """12-6: rows New, and "Works on this computer without a key"."""
    publish(pages, tmp_path, "acme/old", at=datetime(2026, 1, 1, tzinfo=UTC), texts={'en = "Hello"': 'en = "Oldest"'})
    publish(pages, tmp_path, "acme/far", extra=HTTP, texts={'en = "Hello"': 'en = "Faraway"'})
    named = MODEL_PERMISSION.replace('tiers = ["fast"]', 'models = ["openai/none"]')
    publish(pages, tmp_path, "acme/keyed", extra=named, texts={'en = "Hello"': 'en = "Keyed"'})
    shown = pages.owner().get("/store").text
    new, _heading, alone = shown.partition("Works on this computer without a key")
    assert new.index("Faraway") < new.index("Oldest")
    assert "Oldest" in alone
    assert "Faraway" not in alone
    assert "Keyed" not in alone


@pytest.mark.parametrize(("words", "found"), [("says hel", True), ("你好", True), ("zzzz", False), ("'; --", False)])
def test_a_search_finds_in_both_languages_or_says_what_to_do(
    pages: Pages, tmp_path: Path, words: str, found: bool
) -> None:
    """12-6: search, both languages; the empty state."""
    publish(pages, tmp_path, "acme/hello")
    shown = pages.owner().client.get("/store", params={"q": words}).text
    assert ('href="/store/acme/hello"' in shown) is found
    assert ("No app was found" in shown) is not found


def test_an_odd_address_of_the_store_is_a_page_and_no_crash(pages: Pages) -> None:
    browser = pages.owner()
    for query in ({"q": "\0"}, {"q": "a", "after": "x"}, {"category": "\0%"}, {"q": "x" * 300}, {"after": "W10"}):
        assert browser.client.get("/store", params=query).status_code < 500


def test_a_category_is_read_page_by_page(pages: Pages, tmp_path: Path) -> None:
    category = {'license = "Apache-2.0"': 'license = "Apache-2.0"\ncategories = ["writing"]'}
    for number in range(26):
        publish(pages, tmp_path, f"acme/app-{number:02}", texts=category)
    browser = pages.owner()
    first = browser.get("/store?category=writing").text
    assert first.count('class="card app-card"') == 24
    following = first.partition('href="/store?category=writing&amp;after=')[2].partition('"')[0]
    second = browser.get(f"/store?category=writing&after={following}").text
    assert second.count('class="card app-card"') == 2
    assert 'href="/store/acme/app-25"' in second


def test_categories_are_counted_anew_after_every_change_of_the_catalog(pages: Pages, tmp_path: Path) -> None:
    """12: store pages with 100,000 apps: what is counted is remembered, and must not be stale."""
    category = {'license = "Apache-2.0"': 'license = "Apache-2.0"\ncategories = ["writing", "odd"]'}
    browser = pages.owner()

    def shown() -> tuple[bool, int]:
        page = browser.get("/store").text
        return "/store?category=odd" in page, page.count('Writing <span class="help">2</span>')

    assert shown() == (False, 0)
    for number in range(2):
        publish(pages, tmp_path, f"acme/app-{number}", texts=category)
    assert shown() == (True, 1)
    pages.app.state.catalog.yank("acme/app-0", "1.0.0")
    assert shown() == (True, 0)
    pages.app.state.catalog.unyank("acme/app-0", "1.0.0")
    assert shown() == (True, 1)


def test_nothing_that_an_author_writes_becomes_markup(pages: Pages, tmp_path: Path) -> None:
    """12-6: XSS in every field that an author can write."""
    evil = json.dumps(EVIL)
    publish(
        pages,
        tmp_path,
        "acme/evil",
        extra=HTTP.replace('"Looks <b>things</b> up."', evil),
        texts={'en = "Hello"': f"en = {evil}", 'en = "Says hello."': f"en = {evil}", '"Apache-2.0"': evil},
        files={"README.md": f"# {EVIL}\n\n[x](javascript:alert(1)) <img src=x onerror=alert(1)>".encode()},
    )
    browser = pages.owner()
    for path in ("/store", "/store?q=script", "/store/acme/evil"):
        shown = browser.get(path).text
        assert "&lt;script&gt;" in shown
        assert shown.count("<script") == 1  # our own
        assert "<img" not in shown
        assert "javascript:" not in shown.replace("(javascript:", "")


def test_the_page_of_an_app_says_what_it_may_touch_and_what_that_adds_up_to(pages: Pages, tmp_path: Path) -> None:
    """12-6: permissions in plain words, red combinations explained."""
    publish(pages, tmp_path, "acme/spy", extra=HTTP + STORAGE)
    shown = pages.owner().get("/store/acme/spy").text
    assert "Read from any server on the internet" in shown
    assert "Looks &lt;b&gt;things&lt;/b&gt; up." in shown
    assert "could make it give your data away" in shown
    assert 'href="/store/acme/spy/install"' in shown


def test_who_may_not_install_is_offered_no_install(pages: Pages, tmp_path: Path) -> None:
    """12-2: every page checks the role."""
    publish(pages, tmp_path, "acme/hello")
    pages.member("vera", Role.VIEWER)
    shown = pages.signed_in("vera").get("/store/acme/hello").text
    assert "/install" not in shown
    assert "ask an administrator" in shown
    assert pages.browser().get("/store/acme/hello").status_code == 303


def test_a_withdrawn_release_says_so_and_is_not_offered(pages: Pages, tmp_path: Path) -> None:
    publish(pages, tmp_path, "acme/hello", state="yanked")
    browser = pages.owner()
    shown = browser.get("/store/acme/hello").text
    assert "withdrawn" in shown
    assert "/install" not in shown
    assert "acme/hello" not in browser.get("/store").text


def test_an_unknown_app_is_not_there(pages: Pages) -> None:
    assert pages.owner().get("/store/acme/none").status_code == 404


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
    ("icon", "status"), [("icon.svg", 200), ("icon.png", 200), ("icon.html", 404), ("icon.js", 404), ("icon", 404)]
)
def test_an_icon_is_a_picture_that_can_do_nothing(pages: Pages, tmp_path: Path, icon: str, status: int) -> None:
    """12-6: icons as SVG with script."""
    texts = {'license = "Apache-2.0"': f'license = "Apache-2.0"\nicon = "{icon}"'}
    publish(pages, tmp_path, "acme/hello", texts=texts, files={icon: SVG})
    browser = pages.owner()
    assert ('src="/icons/acme/hello/1.0.0"' in browser.get("/store").text) is (status == 200)
    answer = browser.get("/icons/acme/hello/1.0.0")
    assert answer.status_code == status
    if status == 200:
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"].startswith("image/")
        assert answer.content == SVG
    assert browser.get("/icons/acme/hello/9.9.9").status_code == 404
    assert pages.browser().get("/icons/acme/hello/1.0.0").status_code == 303
