"""What holds on every page: accessible in both themes and languages, by keyboard, on a phone; light, and still."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from tests.browser.conftest import PHONE, WIDE, reading

from llmasos_server.web.routers import ROUTERS

ADMIN = ("audit", "members", "models", "plugins", "quotas", "secrets")
# By the route that serves them, whatever else in a route is a page too.
SIGNED_OUT = {
    "/sign-in": "/sign-in",
    "/sign-in/link/{link}": "/sign-in/link/abc",
    "/offline": "/offline",
}
PAGES = {
    "/": "/",
    "/invitations/{link}": "/invitations/unknown",
    "/store": "/store",
    "/store?q": "/store?q=story",
    "/store?empty": "/store?q=xyzzy",
    "/store/{publisher}/{name}": "/store/llmasos/storyteller",
    "/store/{publisher}/{name}/install": "/store/llmasos/storyteller/install",
    "/store/{publisher}/{name}/progress": "/store/llmasos/digest/progress",
    "/store/{publisher}/{name}/upgrade": "/store/llmasos/triage/upgrade",
    "/apps/{publisher}/{name}": "/apps/llmasos/triage",
    "/apps/{publisher}/{name}?run": "/apps/llmasos/triage?run={run}",
    "/apps/{publisher}/{name}/settings": "/apps/llmasos/triage/settings",
    "/activity": "/activity",
    "/activity?empty": "/activity?state=cancelled",
    "/activity/{id_}": "/activity/{run}",
    "/usage": "/usage",
    "/settings": "/settings",
    "/settings/security": "/settings/security",
    "/settings/tokens": "/settings/tokens",
    "/settings/data": "/settings/data",
    **{path: path for path in ("/admin", *(f"/admin/{part}" for part in ADMIN))},
}
# What they serve is not a page.
FILES = {
    *(
        "/static/{name}",
        "/icons/{publisher}/{name}/{version}",
        "/usage/export",
        "/app.webmanifest",
        "/service-worker.js",
    ),
    *("/activity/{id_}/answer", "/activity/{id_}/events", "/activity/{id_}/output", "/activity/{id_}/files/{number}"),
}

NARROWEST = {"width": 320, "height": 640}
LATER_BYTES = 30_000
FIRST_BYTES = 150_000
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

SHIFTS = """new Promise(done => {
  let shift = 0;
  const observer = new PerformanceObserver(list => {
    for (const each of list.getEntries()) shift += each.value;
  });
  observer.observe({type: "layout-shift", buffered: true});
  requestAnimationFrame(() => requestAnimationFrame(() => {
    for (const each of observer.takeRecords()) shift += each.value;
    done(shift);
  }));
})"""
TRANSFERRED = """[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .reduce((sum, each) => sum + each.transferSize, 0)"""
# What reaches out of the page to the right, unless it is in something that scrolls by itself.
TOO_WIDE = """[...document.querySelectorAll("body *")].filter(each =>
  each.getBoundingClientRect().right > innerWidth + 1 && each.checkVisibility()
  && !each.closest(".scroll, pre, .unseen, .skip")).map(each => each.outerHTML.slice(0, 120))"""
FOCUSED = """(() => {
  const each = document.activeElement, style = getComputedStyle(each);
  if (each === document.body) return null;
  const box = each.getBoundingClientRect(), isSame = each === window.lastFocused;
  window.lastFocused = each;
  return {
    isSame,
    what: each.outerHTML.slice(0, 160),
    shown: style.outlineStyle !== "none" || style.boxShadow !== "none",
    onScreen: box.bottom > 0 && box.top < innerHeight,
  };
})()"""
FOCUSABLE = """[...document.querySelectorAll(
  "a[href], button:not([disabled]), input:not([type=hidden]):not([disabled]), select, textarea, summary, [tabindex='0']"
)].filter(each => each.checkVisibility() && each.tabIndex >= 0
&& (each.type !== "radio" || each.checked || !document.querySelector(
  `input[type=radio][name="${CSS.escape(each.name)}"]:checked`))).length"""


@pytest.fixture(scope="module", params=["en", "zh"])
def reader(request: Any, chromium: Any, site: Any, owner: Any) -> Iterator[Any]:
    """A browser in one language, with the machine's own user signed in and what all pages share in its cache."""
    with reading(chromium, site, locale=request.param, storage_state=owner) as reader:
        reader.language = request.param
        reader.open("/")
        yield reader


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_a_page_is_accessible_still_light_and_fits_a_phone(reader: Any, path: str) -> None:
    """12-9: axe in both themes and both languages, phone size; 12: layout shift 0, at most 30 kB later."""
    check(reader, path)


@pytest.mark.parametrize("path", SIGNED_OUT.values(), ids=SIGNED_OUT)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_so_is_a_page_for_strangers(chromium: Any, site: Any, path: str, language: str) -> None:
    """12-9."""
    with reading(chromium, site, locale=language) as reader:
        reader.language = language
        check(reader, path, most_bytes=FIRST_BYTES)


def check(reader: Any, path: str, most_bytes: int = LATER_BYTES) -> None:
    page = reader.page
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light")
    # That an address leads nowhere is said in the console too.
    reader.open(path.format(run=reader.site.a_run))
    reader.faults[:] = [fault for fault in reader.faults if "status of 4" not in fault]
    name = re.sub(r"\W+", "-", path).strip("-") or "home"
    reader.picture(f"{name}-{reader.language}-light")
    # A font that comes late on a busy machine moves a line by less; what people notice begins at ten times it.
    assert page.evaluate(SHIFTS) < 0.01
    assert page.evaluate(TRANSFERRED) <= most_bytes
    assert page.locator("html").get_attribute("lang") == reader.language
    assert page.locator("h1").count() == 1
    page.evaluate(AXE_SCRIPT)
    assert violations(page, {"type": "tag", "values": WCAG}) == []
    page.emulate_media(color_scheme="dark")
    # Nothing but colours depends on the theme.
    assert violations(page, {"type": "rule", "values": ["color-contrast"]}) == []
    reader.picture(f"{name}-{reader.language}-dark")
    for size in (PHONE, NARROWEST):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], page.evaluate(TOO_WIDE)
        assert page.evaluate(TOO_WIDE) == []
        if size is PHONE:
            reader.picture(f"{name}-{reader.language}-phone", whole=True)
    assert violations(page, {"type": "rule", "values": ["target-size", "scrollable-region-focusable"]}) == []


def violations(page: Any, what: dict[str, Any]) -> list[str]:
    """What axe finds, each with the place."""
    found = page.evaluate("what => axe.run({runOnly: what, resultTypes: ['violations']})", what)["violations"]
    return [f"{each['id']}: {node['html']}: {node['failureSummary']}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_all_of_a_page_is_reached_by_keyboard_and_the_focus_is_seen(owner: Any, chromium: Any, site: Any, path: str):
    """12-9: keyboard only."""
    with reading(chromium, site, storage_state=owner) as reader:
        page = reader.open(path.format(run=site.a_run))
        reader.faults.clear()
        stops = []
        for _ in range(400):
            page.keyboard.press("Tab")
            stop = page.evaluate(FOCUSED)
            if stop is None:
                break
            if not stop["isSame"]:  # a date has a stop for each of its parts
                stops.append(stop)
        assert len(stops) == page.evaluate(FOCUSABLE)
        assert [stop["what"] for stop in stops if not stop["shown"] or not stop["onScreen"]] == []


def test_a_first_visit_weighs_little(chromium: Any, site: Any, owner: Any) -> None:
    """12: under 150 kB first."""
    for path in ("/", "/store", "/usage"):
        with reading(chromium, site, storage_state=owner) as reader:
            assert reader.open(path).evaluate(TRANSFERRED) <= FIRST_BYTES


def test_every_page_is_looked_at() -> None:
    """A new page joins the lists above."""
    routes = {route.path for router in ROUTERS for route in router.routes if "GET" in route.methods}
    assert routes - FILES == {path.partition("?")[0] for path in (*PAGES, *SIGNED_OUT)}


def test_no_page_is_looked_at_under_a_name_that_git_keeps() -> None:
    assert "tests/browser/screenshots/" in Path(__file__).parents[2].joinpath(".gitignore").read_text().splitlines()
