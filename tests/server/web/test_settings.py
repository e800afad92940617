"""`/settings` over HTTP: one's own account."""

import html
import json
import re
from datetime import UTC, datetime
from typing import Any

from pyotp.totp import TOTP
from soft_passkey import SoftPasskey
from sqlmodel import select

from llmasos.capabilities.tables import StoredValue
from llmasos.database.transaction import Transaction
from llmasos.invocations import content
from llmasos.invocations.content import InvocationContent
from llmasos.invocations.tables import InvocationContentRow, InvocationRow
from llmasos.kernel.tables import AuditEntry
from llmasos.secrets import Sealer, SecretOwner, Secrets
from llmasos.secrets.tables import SecretRow
from llmasos_server.accounts import people
from llmasos_server.accounts.people import Role
from llmasos_server.accounts.tables import ApiToken, User
from llmasos_server.rest.identity import TokenScope

Pages = Any
PASSWORD = "correct horse battery"


def events(pages: Pages, user: str) -> list[str]:
    with pages.database.read() as session:
        return [row.event for row in session.exec(select(AuditEntry).where(AuditEntry.user_id == user))]


def hidden(browser: Any, name: str) -> list[str]:
    return re.findall(rf'name="{name}" value="([^"]*)"', browser.last.text)


def test_a_name_and_an_address_are_changed(pages: Pages) -> None:
    """12-6: the address, which one signs in with, asks for the password."""
    user = pages.member("ann", Role.VIEWER)
    pages.member("eve", Role.MEMBER)
    ann = pages.signed_in("ann")
    ann.get("/settings")
    assert ann.send("/settings/profile", name="Ann Lee", email="ann@example.com").status_code == 303
    assert "Ann Lee" in ann.get("/settings?done=profile").text
    for email, password in (
        ("a@b.example", ""),
        ("a@b.example", "wrong"),
        ("eve@example.com", PASSWORD),
        ("", PASSWORD),
    ):
        ann.get("/settings")
        assert ann.send("/settings/profile", name="Ann", email=email, password=password).status_code >= 400
    ann.get("/settings")
    assert ann.send("/settings/profile", name="Ann", email="A@B.example", password=PASSWORD).status_code == 303
    with pages.database.read() as session:
        assert session.get(User, user).email == "a@b.example"
    assert "account.email" in events(pages, user)


def test_a_new_password_ends_other_sessions(pages: Pages) -> None:
    """12-6: password (ends other sessions); the old one is asked for, and good no more."""
    pages.member("ann", Role.MEMBER)
    here, there = pages.signed_in("ann"), pages.signed_in("ann")
    for password, new in (("wrong", "battery staple new"), (PASSWORD, "short"), (PASSWORD, "ann@example.com")):
        here.get("/settings/security")
        assert here.send("/settings/security/password", password=password, new=new).status_code >= 400
    assert there.get("/").status_code == 200
    here.get("/settings/security")
    assert here.send("/settings/security/password", password=PASSWORD, new="battery staple new").status_code == 303
    assert here.get("/").status_code == 200
    assert there.get("/").status_code == 303
    again = pages.browser()
    again.get("/sign-in")
    assert again.send("/sign-in", email="ann@example.com", password=PASSWORD).status_code == 401
    pages.signed_in("ann", "battery staple new")


def test_guessing_the_password_of_an_open_session_is_limited(pages: Pages) -> None:
    """12-2: rate limits also where a session is open."""
    pages.member("ann", Role.MEMBER)
    ann = pages.signed_in("ann")
    ann.get("/settings/security")
    page = ann.last
    codes = []
    for _number in range(12):
        ann.last = page
        codes.append(ann.send("/settings/security/password", password="wrong", new="battery staple new").status_code)
    assert codes[0] == 403
    assert codes[-1] == 429


def test_whoever_has_no_address_gives_one_before_a_password(pages: Pages) -> None:
    """12-2: the machine's own user begins without either."""
    owner = pages.owner()
    assert "/settings/security/password" not in owner.get("/settings/security").text
    owner.get("/settings")
    assert owner.send("/settings/profile", name="Me", email="me@example.com").status_code == 303
    owner.get("/settings/security")
    assert owner.send("/settings/security/password", new=PASSWORD).status_code == 303
    browser = pages.browser()
    browser.get("/sign-in")
    assert browser.send("/sign-in", email="me@example.com", password=PASSWORD).status_code == 303


def test_language_and_theme_follow_the_account_to_another_browser(pages: Pages) -> None:
    """12-6."""
    pages.member("ann", Role.MEMBER)
    ann = pages.signed_in("ann")
    ann.get("/settings")
    assert ann.send("/settings/appearance", locale="zh", theme="dark").status_code == 303
    assert '<html lang="zh" data-theme="dark">' in ann.get("/settings").text
    assert '<html lang="zh" data-theme="dark">' in pages.signed_in("ann").get("/").text
    ann.send("/settings/appearance", locale="../x", theme="<b>")
    assert '<html lang="en" data-theme="auto">' in ann.get("/settings").text


def test_a_passkey_is_added_signs_in_and_is_removed(pages: Pages) -> None:
    """12-2: passkeys, from the page, with a real key in software."""
    pages.member("ann", Role.MEMBER)
    ann = pages.signed_in("ann")
    key = SoftPasskey(pages.url)
    ann.get("/settings/security")
    refused = ann.send("/settings/security/passkeys/begin", name="Phone", password="wrong")
    assert refused.status_code == 403
    asked = ann.send("/settings/security/passkeys/begin", name="<i>Phone", password=PASSWORD)
    options = re.search(r'data-options="([^"]*)"', asked.text)
    assert options is not None
    response = key.register(html.unescape(options[1]))
    done = ann.send("/settings/security/passkeys", name="<i>Phone", response=response)
    assert (done.status_code, done.headers["location"]) == (303, "/settings/security?done=passkey-added")
    page = ann.get("/settings/security").text
    assert "&lt;i&gt;Phone" in page
    assert "<i>Phone" not in page
    again = pages.browser()
    again.get("/sign-in")
    begun = again.send("/sign-in/passkey/begin")
    options = re.search(r'data-options="([^"]*)"', begun.text)
    assert options is not None
    assert again.send("/sign-in/passkey", response=key.sign(html.unescape(options[1]))).status_code == 303
    ann.get("/settings/security")
    assert ann.send("/settings/security/passkeys/remove", password=PASSWORD).status_code == 303
    assert "&lt;i&gt;Phone" not in ann.get("/settings/security").text


def test_nobody_removes_anothers_passkey_or_ends_anothers_session(pages: Pages) -> None:
    """12: ids of another user."""
    pages.member("ann", Role.MEMBER)
    pages.member("eve", Role.OWNER)
    ann, eve = pages.signed_in("ann"), pages.signed_in("eve")
    session_id = ann.client.cookies["llmasos_session"].partition("_")[0]
    eve.get("/settings/security")
    token = hidden(eve, "form_token")[0]
    assert eve.post("/settings/security/sessions/end", form_token=token, id=session_id).status_code == 404
    gone = eve.post("/settings/security/passkeys/remove", form_token=token, id="x", password=PASSWORD)
    assert gone.status_code == 404
    assert ann.get("/").status_code == 200


def test_a_session_is_ended_from_another_browser(pages: Pages) -> None:
    """12-2: sessions listed and ended."""
    pages.member("ann", Role.MEMBER)
    here = pages.signed_in("ann")
    there = pages.browser()
    there.client.headers["user-agent"] = "<script>alert(1)</script>"
    there.get("/sign-in")
    there.send("/sign-in", email="ann@example.com", password=PASSWORD)
    page = here.get("/settings/security").text
    assert "<script>alert" not in page
    assert here.send("/settings/security/sessions/end").status_code == 303
    assert there.get("/").status_code == 303
    assert here.get("/").status_code == 200


def test_a_second_factor_is_set_up_by_picture_used_and_removed(pages: Pages) -> None:
    """12-2: TOTP with recovery codes, shown once."""
    user = pages.member("ann", Role.MEMBER)
    ann = pages.signed_in("ann")
    ann.get("/settings/security")
    page = ann.send("/settings/security/second-factor/begin", password=PASSWORD).text
    assert 'src="data:image/svg+xml' in page
    secret = re.search(r"<code>([A-Z2-7 ]+)</code>", page)
    assert secret is not None
    totp = TOTP(secret[1].replace(" ", ""))
    wrong = ann.send("/settings/security/second-factor/confirm", code="000000")
    assert wrong.status_code == 403
    assert secret[1] in wrong.text
    shown = ann.send("/settings/security/second-factor/confirm", code=totp.now()).text
    codes = re.findall(r"<code>([0-9a-f]{5}(?:-[0-9a-f]{5}){3})</code>", shown)
    assert len(codes) == 10
    assert codes[0] not in ann.get("/settings/security").text
    other = pages.browser()
    other.get("/sign-in")
    assert "second-factor" in other.send("/sign-in", email="ann@example.com", password=PASSWORD).text
    assert other.send("/sign-in/second-factor", code=codes[0]).status_code == 303
    token = hidden(ann, "form_token")[0]
    again = ann.post("/settings/security/second-factor/codes", form_token=token, password=PASSWORD).text
    assert codes[1] not in again
    for password, status in (("wrong", 403), (PASSWORD, 303)):
        sent = ann.post("/settings/security/second-factor/remove", form_token=token, password=password)
        assert sent.status_code == status
    pages.signed_in("ann")
    assert {"account.second-factor.add", "account.second-factor.remove"} <= set(events(pages, user))


def test_a_token_is_shown_once_works_and_is_revoked(pages: Pages) -> None:
    """12-2: scoped, expiring tokens; no more than the role allows."""
    assert pages.owner().get("/settings/tokens").text.count('<input type="checkbox"') == len(TokenScope)
    pages.member("vic", Role.VIEWER)
    vic = pages.signed_in("vic")
    page = vic.get("/settings/tokens").text
    assert 'value="admin"' not in page
    assert vic.send("/settings/tokens", name="x", scope="read", days="100000", password=PASSWORD).status_code == 422
    assert vic.send("/settings/tokens", name="x", scope="admin", days="30", password=PASSWORD).status_code == 422
    made = vic.send("/settings/tokens", name="<b>ci", scope="read", days="30", password=PASSWORD).text
    assert "<b>ci" not in made
    token = re.search(r"llmasos_[0-9a-f]{16}_[\w-]{43}", made)
    assert token is not None
    sent = {"authorization": f"Bearer {token[0]}"}
    assert pages.browser().get("/api/v1/usage", **sent).status_code == 200
    assert pages.browser().get("/api/v1/tokens", **sent).status_code == 403
    assert token[0] not in vic.get("/settings/tokens").text
    assert vic.send("/settings/tokens/revoke").status_code == 303
    assert pages.browser().get("/api/v1/usage", **sent).status_code == 401


def test_nobody_revokes_anothers_token(pages: Pages) -> None:
    """12: ids of another user."""
    pages.member("ann", Role.MEMBER)
    pages.member("eve", Role.MEMBER)
    ann, eve = pages.signed_in("ann"), pages.signed_in("eve")
    ann.get("/settings/tokens")
    ann.send("/settings/tokens", name="ci", scope="read", days="30", password=PASSWORD)
    with pages.database.read() as session:
        id_ = session.exec(select(ApiToken)).one().id
    eve.get("/settings/tokens")
    for named in (id_, "0" * 16):
        assert eve.post("/settings/tokens/revoke", form_token=hidden(eve, "form_token")[0], id=named).status_code == 404


def keep_something(pages: Pages, user: str, status: str = "succeeded") -> None:
    """A run with its content, a stored value and a secret of a user."""
    home = pages.app.state.host.settings.home
    now = datetime.now(UTC)
    with pages.database.write() as session:
        about = InvocationRow(
            id=f"run-{user}", workspace_id="default", user_id=user, action="tell", started_at=now, lease_id="none",
            status=status, app_id="acme/hello", log="said things",
        )  # fmt: skip
        session.add(about)
        session.flush()
        sealed = InvocationContent('{"text":"my input"}', '"my output"').seal(Sealer.in_home(home), about.id)
        assert sealed is not None
        transaction = Transaction.of(session)
        content.keep(transaction, about.id, "default", sealed)
        transaction.flush()
        session.add(
            StoredValue(
                workspace_id="default", app_id="acme/hello", user_id=user, key="k", value="my value", version=1,
                size_bytes=9, updated_at=now,
            )
        )  # fmt: skip
        Secrets(home).set(session, SecretOwner("default", user, "acme/hello"), "key", "s3cret-value")


def test_everything_of_mine_is_one_json_file(pages: Pages) -> None:
    """12-6: export everything; of nobody else, and no secret."""
    user, other = pages.member("ann", Role.MEMBER), pages.member("eve", Role.MEMBER)
    for each in (user, other):
        keep_something(pages, each)
    ann = pages.signed_in("ann")
    ann.get("/settings/data")
    sent = ann.send("/settings/data/export")
    assert "attachment" in sent.headers["content-disposition"]
    got = json.loads(sent.text)
    assert got["account"]["email"] == "ann@example.com"
    assert [(each["input"], each["output"]) for each in got["invocations"]] == [({"text": "my input"}, "my output")]
    assert [each["value"] for each in got["stored"]] == ["my value"]
    assert got["secrets"] == [{"workspace": "default", "app": "acme/hello", "name": "key"}]
    for never in ("s3cret", "argon2", '"hash"', other):
        assert never not in sent.text


def test_an_account_is_deleted_with_all_that_is_kept_of_it(pages: Pages) -> None:
    """12-6: delete everything; what others have stays."""
    user, other = pages.member("ann", Role.MEMBER), pages.member("eve", Role.MEMBER)
    for each in (user, other):
        keep_something(pages, each)
    ann, again = pages.signed_in("ann"), pages.signed_in("ann")
    ann.get("/settings/tokens")
    ann.send("/settings/tokens", name="ci", scope="read", days="30", password=PASSWORD)
    for confirmation, password in (("Eve", PASSWORD), ("Ann", "wrong")):
        ann.get("/settings/data")
        sent = ann.send("/settings/data/delete", confirmation=confirmation, password=password)
        assert sent.status_code in {403, 422}
    ann.get("/settings/data")
    assert ann.send("/settings/data/delete", confirmation="Ann", password=PASSWORD).status_code == 303
    assert again.get("/").status_code == 303
    with pages.database.read() as session:
        assert session.get(User, user) is None
        for table in (StoredValue, SecretRow):
            assert [row.user_id for row in session.exec(select(table))] == [other]
        assert [row.invocation_id for row in session.exec(select(InvocationContentRow))] == [f"run-{other}"]
        assert session.get(InvocationRow, f"run-{user}").log == ""
        assert session.exec(select(ApiToken)).all() == []
    assert "member.remove" in events(pages, user)


def test_an_account_stays_if_it_runs_something_or_is_the_last_owner(pages: Pages) -> None:
    """12-6: nothing is half deleted."""
    user = pages.member("ann", Role.OWNER)
    with pages.database.write() as session:
        people.add_member(session, "hers", user, Role.OWNER)
    ann = pages.signed_in("ann")
    ann.get("/settings/data")
    assert ann.send("/settings/data/delete", confirmation="Ann", password=PASSWORD).status_code == 422
    with pages.database.read() as session:
        assert people.workspaces_of(session, user) == ["default", "hers"]
    bob = pages.member("bob", Role.MEMBER)
    keep_something(pages, bob, status="running")
    browser = pages.signed_in("bob")
    browser.get("/settings/data")
    assert browser.send("/settings/data/delete", confirmation="Bob", password=PASSWORD).status_code == 409
    owner = pages.owner()
    owner.get("/settings/data")
    token = hidden(owner, "form_token")[0]
    with pages.database.read() as session:
        name = session.get(User, "local").name
    assert owner.post("/settings/data/delete", form_token=token, confirmation=name).status_code == 403


def test_a_workspace_is_changed_to_one_of_mine_only(pages: Pages) -> None:
    """12-2: "not yours" answers as "not there"."""
    user = pages.member("ann", Role.MEMBER)
    with pages.database.write() as session:
        people.add_member(session, "hers", user, Role.VIEWER)
        people.add_member(session, "theirs", "local", Role.OWNER)
    ann = pages.signed_in("ann")
    ann.get("/settings")
    token = hidden(ann, "form_token")[0]
    for named in ("theirs", "nowhere", ""):
        assert ann.post("/settings/workspace", form_token=token, workspace=named).status_code == 404
    assert ann.send("/settings/workspace", workspace="hers").status_code == 303
    assert "viewer" in ann.get("/settings").text


FORMS = (
    "/settings/profile", "/settings/appearance", "/settings/workspace", "/settings/data/export",
    "/settings/data/delete", "/settings/tokens", "/settings/tokens/revoke", "/settings/security/password",
    "/settings/security/passkeys/begin", "/settings/security/passkeys", "/settings/security/passkeys/remove",
    "/settings/security/second-factor/begin", "/settings/security/second-factor/confirm",
    "/settings/security/second-factor/codes", "/settings/security/second-factor/remove",
    "/settings/security/sessions/end",
)  # fmt: skip


def test_every_form_needs_a_session_and_its_token(pages: Pages) -> None:
    """12: CSRF."""
    stranger, owner = pages.browser(), pages.owner()
    for path in FORMS:
        assert stranger.post(path).headers["location"].startswith("/sign-in")
        assert owner.post(path, form_token="0" * 64).status_code == 403
