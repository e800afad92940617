"""How a person gets in, in a browser."""

from typing import Any

from playwright.sync_api import expect
from tests.browser.conftest import reading

from llmasos_server.accounts import passwords, people
from llmasos_server.accounts.people import Role

Reader = Any


def test_a_person_signs_in_by_the_first_link(stranger: Reader) -> None:
    """12-9: first sign-in."""
    page = stranger.open("/")
    expect(page).to_have_url(f"{stranger.site.url}/sign-in?next=%2F")
    page.goto(stranger.site.link())
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page).to_have_url(f"{stranger.site.url}/")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.get_by_role("link", name="Local").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{stranger.site.url}/sign-in")
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


def test_a_passkey_is_made_and_then_signs_in_alone(chromium: Any, site: Any, owner: Any) -> None:
    """12-9: passkey with a virtual authenticator."""
    with reading(chromium, site, storage_state=owner) as reader:
        page = reader.open("/settings/security")
        devtools = page.context.new_cdp_session(page)
        devtools.send("WebAuthn.enable")
        keys = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True}
        options = {**keys, "isUserVerified": True, "automaticPresenceSimulation": True}
        authenticator = devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]

        page.get_by_label("A name for it").fill("My stick")
        page.get_by_role("button", name="Add a passkey").click()
        expect(page.get_by_text("My stick")).to_be_visible()
        made = devtools.send("WebAuthn.getCredentials", {"authenticatorId": authenticator})["credentials"]
        assert [key["rpId"] for key in made] == ["localhost"]

        page.context.clear_cookies()
        reader.open("/sign-in?next=/settings/security")
        page.get_by_role("button", name="Sign in with a passkey").click()
        expect(page).to_have_url(f"{site.url}/settings/security")
        assert (
            devtools.send("WebAuthn.getCredentials", {"authenticatorId": authenticator})["credentials"][0]["signCount"]
            > 1
        )

        # Whoever holds the stick but does not prove it to the stick gets no further, and reads what to do.
        devtools.send("WebAuthn.setUserVerified", {"authenticatorId": authenticator, "isUserVerified": False})
        page.context.clear_cookies()
        reader.open("/sign-in")
        page.get_by_role("button", name="Sign in with a passkey").click()
        expect(page.get_by_role("status")).to_contain_text("The browser used no passkey")
        reader.open("/settings/security")
        expect(page).to_have_url(f"{site.url}/sign-in?next=%2Fsettings%2Fsecurity")


def test_a_person_signs_in_by_keyboard_alone(chromium: Any, site: Any) -> None:
    """12-9: keyboard only."""
    with site.database.write() as session:
        user = people.add_user(session, "Ann", "ann@example.com")
        user.password_hash = passwords.hash_of("correct horse battery")
        people.add_member(session, "default", user.id, Role.MEMBER)
    with reading(chromium, site) as reader:
        page = reader.open("/sign-in")
        keys = page.keyboard
        keys.press("Tab")
        expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
        keys.press("Enter")
        keys.press("Tab")
        expect(page.get_by_label("E-mail address")).to_be_focused()
        keys.type("ann@example.com")
        keys.press("Tab")
        keys.type("wrong")
        keys.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        page.get_by_label("Password").focus()
        keys.type("correct horse battery")
        keys.press("Enter")
        expect(page).to_have_url(f"{site.url}/")
        reader.faults[:] = [fault for fault in reader.faults if "status of 401" not in fault]
