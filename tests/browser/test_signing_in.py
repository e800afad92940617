"""How a person gets in, in a browser."""

from typing import Any

from playwright.sync_api import expect

Reader = Any


def test_a_person_signs_in_by_the_first_link(stranger: Reader) -> None:
    """12-9: first sign-in."""
    page = stranger.open("/")
    expect(page).to_have_url(f"{stranger.site.url}/sign-in?next=%2F")
    page.goto(stranger.site.link())
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page).to_have_url(f"{stranger.site.url}/")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    stranger.open("/")
    expect(page).to_have_url(f"{stranger.site.url}/sign-in?next=%2F")


def test_language_and_theme_change_at_once_and_are_remembered(stranger: Reader) -> None:
    """12-9: change language and theme."""
    page = stranger.open("/sign-in")
    light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("登录")
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    page.get_by_role("button", name="English").click()
    page.locator("button[name=theme]").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != light
    stranger.open("/sign-in")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.emulate_media(color_scheme="dark")
    page.locator("button[name=theme]").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == light
