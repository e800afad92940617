"""The main job in a browser: find an app, consent, install, run, stop, look back, take a permission back."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import STORY

STORYTELLER = "/apps/llmasos/storyteller"
PREMISE = "a lighthouse keeper who finds a message in a bottle"
BEGINNING = STORY[:20]


@pytest.fixture
def paused(site: Any) -> Iterator[Any]:
    """The model pauses in the middle of its story until `may_go_on` is set."""
    site.narrator.may_go_on.clear()
    yield site.narrator
    site.narrator.may_go_on.set()


def test_a_person_finds_installs_runs_and_takes_back(reader: Any, paused: Any) -> None:
    """12-9: find, consent, install, run with streaming, reload in the middle, stop, history, usage, revoke, refused."""
    page, site = reader.open("/store"), reader.site
    reader.picture("pages-store")
    page.locator("main input[name=q]").press_sequentially("story")
    page.wait_for_url(re.compile("q=story"))
    page.get_by_role("main").get_by_role("link", name="Storyteller").first.click()
    page.get_by_role("link", name="Install").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Install Storyteller?")
    expect(page.get_by_text("Remembers your characters from one story to the next.")).to_be_visible()
    reader.picture("pages-consent")
    sizes = [page.locator(f".decide {each}").bounding_box() for each in ("a", "button")]
    assert sizes[0]["width"] == pytest.approx(sizes[1]["width"], abs=1)
    page.get_by_role("button", name="Install").click()
    page.wait_for_url(re.compile("/progress$"))
    expect(page.get_by_role("link", name="Open").first).to_be_visible(timeout=60_000)

    # It streams; a reload in the middle shows what was there already, and goes on.
    reader.open(STORYTELLER)
    page.get_by_label("What is it about?").fill(PREMISE)
    page.get_by_role("button", name="Run").last.click()
    streamed = page.locator("[data-streamed]")
    expect(streamed).to_contain_text(BEGINNING)
    page.reload()
    expect(streamed).to_contain_text(BEGINNING)
    paused.may_go_on.set()
    expect(page.locator(".ended")).to_contain_text("he let it burn all day.")
    expect(page.locator(".ended em")).to_have_text("Is the light still on?")
    expect(page.locator(".facts-line")).to_contain_text("narrator")
    reader.picture("pages-run")

    # Stopped, it keeps what it had shown.
    paused.may_go_on.clear()
    page.get_by_role("button", name="Run again").last.click()
    expect(streamed).to_contain_text(BEGINNING)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".ended").get_by_role("alert")).to_be_visible()
    paused.may_go_on.set()

    reader.open("/activity")
    expect(page.locator(".runs li").nth(0)).to_contain_text("Stopped")
    expect(page.locator(".runs li").nth(1)).to_contain_text("Done")
    page.locator(".runs li a").nth(1).click()
    expect(page.get_by_role("main")).to_contain_text(PREMISE)
    reader.open("/usage")
    expect(page.get_by_role("main")).to_contain_text("narrator")

    # Taken back, a permission is refused at once, and the page says how to give it again.
    reader.open(f"{STORYTELLER}/settings")
    page.get_by_role("switch", name="Ask language models").click()
    expect(page.get_by_role("link", name="Allow again")).to_be_visible()
    reader.open(STORYTELLER)
    page.get_by_label("What is it about?").fill(PREMISE)
    page.get_by_role("button", name="Run").last.click()
    refused = page.locator(".ended").get_by_role("alert")
    expect(refused).to_contain_text("its user declined that, or took it back")
    expect(page.locator(".facts-line")).not_to_contain_text("narrator")
    assert site.narrator.running == 0
    page.get_by_role("link", name="What it may do").click()
    page.get_by_role("link", name="Allow again").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What may Storyteller do?")


def test_an_app_runs_by_keyboard_alone(reader: Any) -> None:
    """12-9: keyboard only."""
    page = reader.open("/apps/llmasos/triage")
    page.get_by_role("textbox").first.focus()
    page.keyboard.type("I was charged twice")
    page.keyboard.press("Control+Enter")
    page.wait_for_url(re.compile("run="))
    expect(page.locator(".ended, .live")).to_be_visible()
