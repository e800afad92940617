"""`/admin` over HTTP: for administrators alone."""

import re
from typing import Any

import upstream
from sqlmodel import col, select

from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.kernel.tables import AuditEntry
from llmasos.quotas import service as quotas
from llmasos.secrets import SecretOwner, Secrets
from llmasos.secrets.tables import SecretRow
from llmasos_server.accounts import people, sign_in
from llmasos_server.accounts.people import Role
from llmasos_server.accounts.tables import User

Pages = Any
PAGES = (
    "/admin", "/admin/members", "/admin/models", "/admin/quotas", "/admin/secrets", "/admin/audit", "/admin/plugins",
)  # fmt: skip
FORMS = (
    "/admin/checks", "/admin/members/invite", "/admin/members/uninvite", "/admin/members/role",
    "/admin/members/remove", "/admin/models", "/admin/models/test", "/admin/models/remove", "/admin/quotas",
    "/admin/quotas/remove",
)  # fmt: skip
OF_THE_HOST = ("/admin/models", "/admin/plugins", "/admin/checks", "/admin/models/test", "/admin/models/remove")


def token_of(browser: Any) -> str:
    found = re.search(r'name="form_token" value="([^"]*)"', browser.get("/settings").text)
    assert found is not None
    return found[1]


def test_only_administrators_see_and_change_anything(pages: Pages) -> None:
    """12-2: every page checks the role, and every form its token."""
    pages.member("ann", Role.ADMIN)
    for name, role in (("vic", Role.VIEWER), ("bob", Role.MEMBER)):
        pages.member(name, role)
        browser = pages.signed_in(name)
        token = token_of(browser)
        assert "/admin" not in browser.last.text
        for path in PAGES:
            assert browser.get(path).status_code == 403
        for path in FORMS:
            assert browser.post(path, form_token=token).status_code == 403
    admin = pages.signed_in("ann")
    for path in PAGES:
        assert admin.get(path).status_code == 200
        assert pages.browser().get(path).status_code == 303
    for path in FORMS:
        assert admin.post(path, form_token="0" * 64).status_code == 403


def test_an_administrator_of_another_workspace_does_not_see_the_host(pages: Pages) -> None:
    """12-2: "not yours" answers as "not there"."""
    with pages.database.write() as session:
        user = people.add_user(session, "Eve", "eve@example.com")
        people.add_member(session, "elsewhere", user.id, Role.OWNER)
        user_id = user.id
    pages.member("ann", Role.MEMBER)
    eve = pages.browser()
    with pages.database.write() as session:
        link = sign_in.new_link(session, user_id).text
    eve.post(f"/sign-in/link/{link}")
    token = token_of(eve)
    for path in OF_THE_HOST:
        sent = eve.get(path) if path in PAGES else eve.post(path, form_token=token)
        assert sent.status_code == 404
    assert eve.post("/admin/models", form_token=token, name="x", litellm="openai/x").status_code == 404
    for path in ("/admin", "/admin/members", "/admin/secrets", "/admin/audit", "/admin/quotas"):
        shown = eve.get(path)
        assert shown.status_code == 200
        assert "ann@example.com" not in shown.text
    with pages.database.read() as session:
        ann = session.exec(select(User).where(User.email == "ann@example.com")).one().id
    for path in ("/admin/members/role", "/admin/members/remove"):
        assert eve.post(path, form_token=token, id=ann, role="owner").status_code == 404
    assert eve.post("/admin/quotas", form_token=token, **{"for": f"user:{ann}"}).status_code == 422


def test_a_member_is_invited_promoted_and_removed(pages: Pages) -> None:
    """12-2: invitations by link, roles; the link is shown once."""
    owner = pages.owner()
    owner.get("/admin/members")
    shown = owner.send("/admin/members/invite", email="eve@example.com", role="member").text
    link = re.search(r"http://localhost:\d+(/invitations/[0-9a-f]{16}_[\w-]{43})", shown)
    assert link is not None
    assert link[1] not in owner.get("/admin/members").text
    eve = pages.browser()
    eve.get(link[1])
    assert eve.send(link[1], name="Eve", password="correct horse battery").status_code == 303
    with pages.database.read() as session:
        user = session.exec(select(User).where(User.email == "eve@example.com")).one().id
    token = token_of(owner)
    assert owner.post("/admin/members/role", form_token=token, id=user, role="admin").status_code == 303
    assert eve.get("/admin").status_code == 200
    # Who is no owner makes none, and deposes none.
    hers = token_of(eve)
    for path, fields in (
        ("/admin/members/role", {"id": user, "role": "owner"}),
        ("/admin/members/role", {"id": "local", "role": "viewer"}),
        ("/admin/members/remove", {"id": "local"}),
    ):
        assert eve.post(path, form_token=hers, **fields).status_code == 422
    assert eve.post("/admin/members/invite", form_token=hers, email="x@example.com", role="owner").status_code == 403
    for role in ("", "god"):
        assert owner.post("/admin/members/role", form_token=token, id=user, role=role).status_code == 422
    assert owner.post("/admin/members/remove", form_token=token, id=user).status_code == 303
    assert eve.get("/").status_code == 303
    assert owner.post("/admin/members/remove", form_token=token, id="local").status_code == 422


def test_an_invitation_is_taken_back(pages: Pages) -> None:
    """12-2."""
    owner = pages.owner()
    owner.get("/admin/members")
    shown = owner.send("/admin/members/invite", email="eve@example.com", role="viewer").text
    link = re.search(r"(/invitations/[0-9a-f]{16}_[\w-]{43})", shown)
    assert link is not None
    owner.get("/admin/members")
    assert owner.send("/admin/members/uninvite").status_code == 303
    assert pages.browser().get(link[1]).status_code == 401


def test_a_limit_is_set_and_removed(pages: Pages) -> None:
    """12-6: quotas."""
    user = pages.member("ann", Role.MEMBER)
    owner = pages.owner()
    for subject, limit in (("workspace", "1000"), (f"user:{user}", "50"), ("model:smollm2", "70")):
        owner.get("/admin/quotas")
        fields = {"for": subject, "limit": limit, "meter": "tokens", "window": "day"}
        assert owner.send("/admin/quotas", **fields).status_code == 303
    with pages.database.read() as session:
        listed = quotas.list_quotas(session, "default")
    found = {(each.name.scope.value, each.name.scope_id): each.limit for each in listed}
    assert found == {("workspace", "default"): 1000, ("user", user): 50, ("model", "smollm2"): 70}
    refused = (
        {"for": "user:nobody"}, {"for": "app:no/such"}, {"for": "model:none"}, {"for": "x"}, {"limit": "-1"},
        {"limit": "1e9"}, {"limit": "9" * 30}, {"meter": "x"}, {"window": ""}, {"limit": "٣"},
    )  # fmt: skip
    for wrong in refused:
        owner.get("/admin/quotas")
        fields = {"for": "workspace", "limit": "5", "meter": "tokens", "window": "day", **wrong}
        assert owner.send("/admin/quotas", **fields).status_code in {404, 422}
    owner.get("/admin/quotas")
    assert owner.send("/admin/quotas/remove").status_code == 303
    with pages.database.read() as session:
        assert len(quotas.list_quotas(session, "default")) == 2


def test_secrets_are_named_and_never_shown(pages: Pages) -> None:
    """12-6: names only, of this workspace only."""
    user = pages.member("ann", Role.MEMBER)
    secrets = Secrets(pages.app.state.host.settings.home)
    with pages.database.write() as session:
        secrets.set(session, SecretOwner("default", user, "acme/hello"), "weather", "s3cret-value")
        secrets.set(session, SecretOwner("elsewhere", user, "acme/hello"), "other", "s3cret-value")
    shown = pages.owner().get("/admin/secrets").text
    assert "weather" in shown
    assert "Ann" in shown
    assert "<code>other</code>" not in shown
    assert "s3cret" not in shown


def test_the_audit_log_is_read_page_by_page_and_verified(pages: Pages) -> None:
    """12-6: audit with its verification; 12: what guests name is text."""
    with pages.database.write() as session:
        for number in range(60):
            audit.record(session, Line("default", "local", "<b>x", detail={"number": number, "<i>": "<script>"}))
        audit.record(session, Line("elsewhere", "local", "theirs"))
    owner = pages.owner()
    newest = owner.get("/admin/audit").text
    assert "number: 59" in newest
    assert "number: 5<" not in newest
    assert "<b>x" not in newest
    assert "<script>" not in newest
    assert "theirs" not in newest
    older = re.search(r'href="(/admin/audit\?before=\d+)"', newest)
    assert older is not None
    assert "number: 5<" in owner.get(older[1]).text
    assert "as it was written" in owner.get("/admin/audit?checked=true").text
    with pages.database.write() as session:
        last = session.exec(select(AuditEntry).order_by(col(AuditEntry.seq).desc())).first()
        forged = last.model_dump() | {"workspace_id": "default", "seq": last.seq + 1000, "hash": "0" * 64}
        session.add(AuditEntry(**forged))
    assert "was changed" in owner.get("/admin/audit?checked=true").text
    assert owner.get("/admin/audit?before=x").status_code == 422


def test_the_overview_checks_what_doctor_checks(pages: Pages) -> None:
    """12-6: doctor's findings, in the reader's language."""
    owner = pages.owner()
    quick = owner.get("/admin").text
    assert "The database" not in quick
    full = owner.send("/admin/checks").text
    assert "The database is whole." in full
    assert "The ledger adds up" in full


def test_plugins_are_listed(pages: Pages) -> None:
    """12-6."""
    assert "llmasos-router" in pages.owner().get("/admin/plugins").text


def test_a_model_is_added_with_its_key_tried_and_removed(pages: Pages) -> None:
    """12-6: models: add with a form and a test; a real server with the OpenAI interface, the real litellm."""
    owner = pages.owner()
    with upstream.serving() as server:
        server.say(upstream.answer({"content": "Hello <b>there</b>"}), upstream.Whole({"error": "no"}, status=401))
        owner.get("/admin/models")
        fields = {"name": "mine", "litellm": "openai/some-model", "api_base": server.base, "api_key": "sk-s3cret-value"}
        added = owner.send("/admin/models", **fields, tier="fast", goes_to="us", input_price="0.15", output_price="")
        assert added.status_code == 303, added.text
        page = owner.get("/admin/models").text
        assert "mine" in page
        assert "$0.1500" in page
        assert "s3cret" not in page
        again = owner.send("/admin/models", **fields, tier="fast")
        assert again.status_code == 409
        assert "sk-s3cret" not in again.text
        owner.get("/admin/models")
        tried = owner.send("/admin/models/test", name="mine")
        assert tried.status_code == 200
        assert "Hello &lt;b&gt;there" in tried.text
        assert server.requests[0]["model"] == "some-model"
        failed = owner.send("/admin/models/test", name="mine")
        assert failed.status_code >= 400
        assert "mine: " in failed.text
    with pages.database.read() as session:
        secrets = Secrets(pages.app.state.host.settings.home)
        assert secrets.value(session, SecretOwner("default", "local"), "model_mine") == "sk-s3cret-value"
    owner.get("/admin/models")
    assert owner.send("/admin/models/remove", name="mine").status_code == 303
    assert owner.post("/admin/models/remove", form_token=token_of(owner), name="smollm2").status_code == 422
    assert owner.post("/admin/models/test", form_token=token_of(owner), name="none").status_code == 404
    with pages.database.read() as session:
        kept = {row.event for row in session.exec(select(AuditEntry))}
    assert {"model.add", "model.remove"} <= kept


def test_a_model_that_cannot_be_is_refused_and_leaves_nothing(pages: Pages) -> None:
    """12: bad input of the form."""
    owner = pages.owner()
    good = {"name": "mine", "litellm": "openai/some-model", "tier": "fast"}
    wrong = (
        {"name": ""}, {"name": "a b"}, {"litellm": ""}, {"litellm": "nobody/x"}, {"tier": "x"},
        {"api_base": "javascript:alert(1)"}, {"input_price": "-1"}, {"input_price": "1e9"}, {"api_key": "two\nlines"},
    )  # fmt: skip
    for each in wrong:
        owner.get("/admin/models")
        refused = owner.send("/admin/models", **{**good, **each})
        assert refused.status_code == 422, each
    assert "mine" not in pages.app.state.host.gateway.registry.models
    with pages.database.read() as session:
        assert session.exec(select(SecretRow)).all() == []
