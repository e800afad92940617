"""How a browser becomes somebody's, over HTTP."""

import re
from typing import Any

import pytest

from llmasos.kernel.invocation import Principal
from llmasos_server.accounts import invitations
from llmasos_server.accounts.people import Role
from llmasos_server.web.page import SESSION_COOKIE, local

Pages = Any


def test_a_stranger_is_sent_to_sign_in_and_comes_back(pages: Pages) -> None:
    """12-2."""
    pages.member("ann", Role.MEMBER)
    browser = pages.browser()
    sent = browser.get("/?a=b")
    assert sent.status_code == 303
    browser.get(sent.headers["location"])
    done = browser.send("/sign-in", email="ann@example.com", password="correct horse battery")
    assert (done.status_code, done.headers["location"]) == (303, "/?a=b")
    assert browser.get("/").status_code == 200


def test_the_first_link_is_used_by_a_button_and_once(pages: Pages) -> None:
    """12-2: a program that looks at links in advance does not use it up."""
    from llmasos_server.accounts import sign_in

    with pages.database.write() as session:
        link = sign_in.first_link(session).text
    browser = pages.browser()
    for _number in range(3):
        assert browser.get(f"/sign-in/link/{link}").status_code == 200
    assert browser.send(f"/sign-in/link/{link}").status_code == 303
    assert browser.get("/").status_code == 200
    again = pages.browser()
    again.get(f"/sign-in/link/{link}")
    refused = again.send(f"/sign-in/link/{link}")
    assert refused.status_code == 401
    assert SESSION_COOKIE not in again.client.cookies


def test_a_wrong_name_and_a_wrong_password_get_one_page(pages: Pages) -> None:
    """12-2: the same answer for unknown and wrong."""
    pages.member("ann", Role.MEMBER)
    shown = set()
    for email, password in (("ann@example.com", "wrong"), ("eve@example.com", "wrong")):
        browser = pages.browser()
        browser.get("/sign-in")
        refused = browser.send("/sign-in", email=email, password=password)
        assert refused.status_code == 401
        shown.add(refused.text.replace(email, ""))
    assert len(shown) == 1


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(pages: Pages) -> None:
    pages.member("ann", Role.MEMBER)
    browser = pages.browser()
    browser.get("/sign-in")
    cookie = browser.send("/sign-in", email="ann@example.com", password="correct horse battery").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


def test_sign_out_ends_the_session_and_not_only_the_cookie(pages: Pages) -> None:
    """12-2: a session used after sign-out."""
    browser = pages.owner()
    cookie = browser.client.cookies[SESSION_COOKIE]
    browser.get("/")
    token = re.search('name="form_token" value="([0-9a-f]{64})"', browser.last.text)
    assert token is not None
    assert browser.post("/sign-out", form_token=token[1]).status_code == 303
    thief = pages.browser()
    thief.client.cookies.set(SESSION_COOKIE, cookie)
    assert thief.get("/").status_code == 303


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
def test_a_form_that_is_not_of_this_session_is_refused(pages: Pages, token: str) -> None:
    """12: CSRF."""
    browser = pages.owner()
    assert browser.post("/sign-out", form_token=token).status_code == 403
    assert browser.get("/").status_code == 200


def test_a_form_of_another_origin_is_refused(pages: Pages) -> None:
    """12: CSRF, also before anybody is signed in."""
    for origin in ("https://evil.example", "http://localhost.evil.example", "null"):
        sent = pages.browser().client.post("/sign-in", data={"email": "a@b"}, headers={"origin": origin})
        assert sent.status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "",
        "/a\r\nset-cookie: x=y",
        "\\/e",
    ],
)
def test_no_redirect_leads_elsewhere(path: str) -> None:
    """12: open redirects."""
    assert local(path) == "/"


def test_an_invitation_makes_a_member_who_is_signed_in(pages: Pages) -> None:
    """12-2."""
    with pages.database.write() as session:
        link = invitations.invite(session, Principal(), "eve@example.com", Role.VIEWER).text
    browser = pages.browser()
    assert "eve@example.com" in browser.get(f"/invitations/{link}").text
    action = f"/invitations/{link}"
    assert browser.send(action, name="Eve", password="short").status_code == 422
    assert browser.send(action, name="Eve", password="correct horse battery").status_code == 303
    assert "Eve" in browser.get("/").text
    assert pages.browser().get(f"/invitations/{link}").status_code == 401


def test_every_page_forbids_scripts_and_frames_of_others(pages: Pages) -> None:
    for path in ("/sign-in", "/", "/sign-in/link/x", "/invitations/x"):
        headers = pages.browser().get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"


def test_names_that_people_chose_are_text_on_every_page(pages: Pages) -> None:
    """12: XSS in what a user can write."""
    user = pages.member("ann", Role.MEMBER)
    with pages.database.write() as session:
        from llmasos_server.accounts.tables import User

        session.get(User, user).name = "<script>alert(1)</script>\"'{{1234*5678}}"
    shown = pages.signed_in("ann").get("/").text
    assert "<script>alert" not in shown
    assert "7006652" not in shown


def test_language_and_theme_are_remembered(pages: Pages) -> None:
    browser = pages.browser()
    assert 'lang="zh"' in browser.get("/sign-in", **{"accept-language": "zh-CN"}).text
    assert 'lang="en"' in browser.get("/sign-in").text
    assert browser.send("/preferences", locale="zh", theme="dark").headers["location"] == "/sign-in"
    shown = browser.get("/sign-in").text
    assert '<html lang="zh" data-theme="dark">' in shown
    assert "登录" in shown
    browser.send("/preferences", locale="../../etc", theme="<b>")
    assert '<html lang="zh" data-theme="dark">' in browser.get("/sign-in").text


def test_what_pages_load_is_named_by_its_contents_and_kept(pages: Pages) -> None:
    html = pages.browser().get("/sign-in").text
    files = set(re.findall(r'"(/static/[^"#]+)', html))
    assert len(files) >= 4
    for file in files:
        served = pages.browser().get(file)
        assert served.status_code == 200
        assert "immutable" in served.headers["cache-control"]
        stem, _hash, ending = file.rsplit(".", 2)
        assert pages.browser().get(f"{stem}.000000000000.{ending}").status_code == 404
