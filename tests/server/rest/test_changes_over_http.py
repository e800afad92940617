"""12-4: what a command or a page changes, a program changes too. The whole server, and a runtime that runs nothing."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmasos.bundles.testing import make_bundle, manifest_text
from llmasos.capabilities.storage import Area, Value
from llmasos.database.engine import Database
from llmasos.gateway.gateway import Gateway
from llmasos.host import HostParts
from llmasos.installs.testing import NotingRuntime
from llmasos.kernel.invocation import Principal
from llmasos.settings import Settings
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.store import BundleStore
from llmasos_marketplace.catalog.testing import add_bundle
from llmasos_server.accounts import people
from llmasos_server.accounts.people import Role
from llmasos_server.accounts.tokens import create_token
from llmasos_server.rest.identity import TokenScope
from llmasos_server.server import create_app

HTTP = """
[[permissions]]
capability = "http"
hosts = ["https://a.com", "https://b.com"]
methods = ["GET", "POST"]
optional = true
reason.en = "Reads."
[config.tone]
type = "string"
enum = ["plain", "formal"]
default = "plain"
title.en = "Tone"
"""
STORAGE = '\n[[permissions]]\ncapability = "storage"\nmax_bytes = 1000\nreason.en = "Remembers."\n'


@dataclass
class Api:
    """A server, and the tokens of its people."""

    client: httpx.AsyncClient
    database: Database
    home: Path
    tokens: dict[str, str] = field(default_factory=dict[str, str])

    async def call(self, who: str, method: str, path: str, **sent: Any) -> Any:
        """Call a route; the document, with its status as `status` if it is a problem."""
        headers = {"authorization": f"Bearer {self.tokens[who]}"}
        answer = await self.client.request(method, f"/api/v1{path}", headers=headers, **sent)
        assert answer.status_code < 500, answer.text
        return answer.json()

    async def install(self, who: str = "ann", app: str = "acme/hello", **more: Any) -> Any:
        """Read a plan, and agree to it."""
        asked = {"app": app, **{name: more.pop(name) for name in ("upgrade",) if name in more}}
        plan = await self.call(who, "POST", "/installation-plans", json=asked)
        return await self.call(who, "POST", "/installations", json={**asked, "consent": plan["consent"], **more})

    async def installation(self, app: str = "acme/hello") -> str:
        """The id of an app's installation."""
        found = (await self.call("root", "GET", "/installations"))["items"]
        return next(each["id"] for each in found if each["app"] == app)

    def publish(self, version: str, extra: str = HTTP, app: str = "acme/hello") -> None:
        """Put a release into the catalog."""
        folder = self.home / f"made-{app.replace('/', '-')}-{version}"
        folder.mkdir()
        add_bundle(
            Catalog(self.database, BundleStore(self.home / "bundles")),
            make_bundle(folder, manifest_text(app, version, extra)),
        )


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Api]:
    app = create_app(Settings(home=home), parts=HostParts(runtimes={"wasm": lambda _handler: NotingRuntime()}))
    async with app.router.lifespan_context(app):
        database = app.state.host.database
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            api = Api(client, database, home)
            with database.write() as session:
                every = [TokenScope.RUN, TokenScope.READ, TokenScope.INSTALL]
                api.tokens["root"] = create_token(session, Principal(), scopes=[TokenScope.ADMIN]).token
                for name, role in (
                    ("ann", Role.MEMBER),
                    ("bob", Role.MEMBER),
                    ("eve", Role.VIEWER),
                    ("ada", Role.ADMIN),
                ):
                    user = people.add_user(session, name, f"{name}@example.com")
                    people.add_member(session, "default", user.id, role)
                    me = Principal(user=user.id)
                    scopes = [TokenScope.ADMIN] if role is Role.ADMIN else every
                    api.tokens[name] = create_token(session, me, scopes=scopes).token
                    api.tokens[f"{name} id"] = user.id
                api.tokens["runner"] = create_token(session, Principal()).token
                bound = create_token(session, Principal(), scopes=every, apps=["acme/other"])
                api.tokens["bound"] = bound.token
            yield api


@pytest.fixture
async def api(tmp_path: Path, migrated: Path) -> AsyncIterator[Api]:
    shutil.copy(migrated / "llmasos.db", tmp_path)
    async with opened(tmp_path) as api:
        api.publish("1.0.0")
        yield api


async def test_an_app_is_planned_installed_upgraded_rolled_back_and_removed(api: Api) -> None:
    """12-4."""
    plan = await api.call("ann", "POST", "/installation-plans", json={"app": "acme/hello"})
    assert (plan["needs_consent"], plan["version"]) == (True, "1.0.0")
    assert [each["capability"] for each in plan["steps"][0]["consent"]["permissions"]] == ["http"]
    agreed = {"app": "acme/hello", "consent": plan["consent"], "config": {"acme/hello": {"tone": "formal"}}}
    [installed] = (await api.call("ann", "POST", "/installations", json=agreed))["items"]
    assert installed["outcome"] == "installed"
    [again] = (await api.call("ann", "POST", "/installations", json=agreed))["items"]
    assert (again["outcome"], again["id"]) == ("already", installed["id"])
    assert (await api.call("ann", "GET", f"/installations/{installed['id']}/config"))["config"] == {"tone": "formal"}
    api.publish("1.1.0")
    [upgraded] = (await api.install(upgrade=True))["items"]
    assert (upgraded["outcome"], upgraded["version"]) == ("upgraded", "1.1.0")
    back = await api.call("ann", "POST", f"/installations/{installed['id']}/rollback")
    assert (back["outcome"], back["version"]) == ("rolled-back", "1.0.0")
    gone = await api.call("ann", "DELETE", f"/installations/{installed['id']}?data=keep")
    assert gone["outcome"] == "uninstalled"
    assert (await api.call("ann", "GET", "/installations"))["items"] == []


async def test_consent_holds_for_the_plan_that_was_read_and_for_no_other(api: Api) -> None:
    """12-4: between reading and agreeing, a release that asks for more was published."""
    plan = await api.call("ann", "POST", "/installation-plans", json={"app": "acme/hello"})
    api.publish("1.0.1", HTTP.replace("https://b.com", "*"))
    agreed = {"app": "acme/hello", "consent": plan["consent"]}
    refused = await api.call("ann", "POST", "/installations", json=agreed)
    assert (refused["status"], refused["code"]) == (409, "consent-outdated")
    refused = await api.call("ann", "POST", "/installations", json={**agreed, "consent": "0" * 64})
    assert refused["code"] == "consent-outdated"
    assert (await api.call("ann", "GET", "/installations"))["items"] == []


async def test_a_grant_is_narrowed_and_one_host_is_taken_out_of_it(api: Api) -> None:
    """12-4."""
    await api.install()
    grants = f"/installations/{await api.installation()}/grants"
    narrowed = await api.call("ann", "PATCH", f"{grants}/http", json={"scope": {"methods": ["GET"]}})
    assert narrowed["outcome"] == "narrowed"
    wider = await api.call("ann", "PATCH", f"{grants}/http", json={"scope": {"methods": ["GET", "POST"]}})
    assert (wider["status"], wider["code"]) == (422, "invalid")
    for scope in ({"hosts": ["https://c.com"]}, {"hosts": "https://a.com"}, {"capability": "model"}, {"nothing": 1}):
        refused = await api.call("ann", "PATCH", f"{grants}/http", json={"scope": scope})
        assert refused["status"] == 422, scope
    await api.call("ann", "DELETE", f"{grants}/http?host=https://b.com")
    [grant] = (await api.call("ann", "GET", grants))["items"]
    assert (grant["scope"]["hosts"], grant["scope"]["methods"]) == (["https://a.com"], ["GET"])
    unknown = await api.call("ann", "DELETE", f"{grants}/http?host=https://c.com")
    assert unknown["status"] == 404
    await api.call("ann", "DELETE", f"{grants}/http?host=https://a.com")
    [grant] = (await api.call("ann", "GET", grants))["items"]
    assert grant["revoked_at"] is not None
    # What was narrowed and revoked is asked for again, and only then granted.
    [granted] = (await api.install())["items"]
    assert granted["outcome"] == "granted"
    [grant] = (await api.call("ann", "GET", grants))["items"]
    assert grant["scope"]["hosts"] == ["https://a.com", "https://b.com"]


async def test_a_narrowed_grant_stays_narrow_over_an_upgrade_and_a_rollback(api: Api) -> None:
    """12-4."""
    await api.install()
    api.publish("1.1.0")
    await api.install(upgrade=True)
    installation = await api.installation()
    await api.call("ann", "DELETE", f"/installations/{installation}/grants/http?host=https://b.com")
    await api.call("ann", "POST", f"/installations/{installation}/rollback")
    api.publish("1.2.0")
    await api.install(upgrade=True)
    [grant] = (await api.call("ann", "GET", f"/installations/{installation}/grants"))["items"]
    assert grant["scope"]["hosts"] == ["https://a.com"]


async def test_settings_are_changed_by_their_form_alone(api: Api) -> None:
    """12-4."""
    await api.install()
    config = f"/installations/{await api.installation()}/config"
    assert (await api.call("ann", "PATCH", config, json={"config": {"tone": "formal"}}))["config"]["tone"] == "formal"
    for values in ({"tone": "loud"}, {"tone": 1}, {"other": "x"}, {"tone": "a\0"}):
        assert (await api.call("ann", "PATCH", config, json={"config": values}))["status"] == 422
    assert (await api.call("ann", "GET", config))["config"] == {"tone": "formal"}


async def test_stored_data_is_sized_listed_and_deleted_by_its_own_user(api: Api) -> None:
    """12-4."""

    for user in ("ann", "bob"):
        area = Area(api.database, ("default", "acme/hello", api.tokens[f"{user} id"]), 1000)
        for key in ("a", "b/c", "ü"):
            await area.put(key, Value("123", False, 3))
    base = "/apps/acme/hello/storage"
    assert await api.call("ann", "GET", base) == {"app": "acme/hello", "values": 3, "size_bytes": 15}
    first = await api.call("ann", "GET", f"{base}/keys?limit=2")
    second = await api.call("ann", "GET", f"{base}/keys?cursor={first['next']}")
    assert [each["key"] for each in first["items"] + second["items"]] == ["a", "b/c", "ü"]
    assert await api.call("ann", "DELETE", f"{base}?key=b/c") == {"deleted": 1}
    assert await api.call("ann", "DELETE", f"{base}?key=b/c") == {"deleted": 0}
    assert await api.call("ann", "DELETE", base) == {"deleted": 2}
    assert (await api.call("ann", "GET", base))["size_bytes"] == 0
    assert (await api.call("bob", "GET", base))["values"] == 3
    # A reader of an old value must not overwrite a new one: versions never repeat.
    area = Area(api.database, ("default", "acme/hello", api.tokens["ann id"]), 1000)
    assert await area.put("a", Value("1", False, 1)) == 2


async def test_secrets_are_set_listed_and_removed_and_never_shown(api: Api) -> None:
    """12-4."""
    own = {"value": "s3cret-value", "app": "acme/hello"}
    assert await api.call("ann", "PUT", "/secrets/api_key", json=own) == {"name": "api_key", "app": "acme/hello"}
    assert (await api.call("ann", "GET", "/secrets"))["items"] == [{"name": "api_key", "app": "acme/hello"}]
    assert (await api.call("bob", "GET", "/secrets"))["items"] == []
    assert (await api.call("bob", "DELETE", "/secrets/api_key?app=acme/hello"))["status"] == 404
    # The host's own, such as a model's key: its administrators set it, whoever they are, and others do not see it.
    assert (await api.call("ann", "PUT", "/secrets/openai", json={"value": "k"}))["status"] == 404
    await api.call("ada", "PUT", "/secrets/openai", json={"value": "k"})
    assert {"name": "openai", "app": None} in (await api.call("root", "GET", "/secrets"))["items"]
    assert {"name": "openai", "app": None} not in (await api.call("ann", "GET", "/secrets"))["items"]
    assert (await api.call("ann", "DELETE", "/secrets/api_key?app=acme/hello"))["name"] == "api_key"
    assert "s3cret" not in str(await api.call("root", "GET", "/audit"))


async def test_quotas_retention_and_policy_of_contents_are_administrators_own(api: Api) -> None:
    """12-4."""
    await api.install()
    quota = {"scope": "app", "scope_id": "acme/hello", "meter": "tokens", "window": "day", "limit": 50}
    assert (await api.call("ann", "PUT", "/quotas", json=quota))["code"] == "scope-missing"
    assert (await api.call("ada", "PUT", "/quotas", json=quota))["limit"] == 50
    assert 50 in [each["limit"] for each in (await api.call("ann", "GET", "/quotas"))["items"]]
    for wrong in ({"scope_id": "acme/nobody"}, {"limit": -1}, {"limit": 1.5}, {"limit": "5"}, {"meter": "x"}, {"x": 1}):
        assert (await api.call("ada", "PUT", "/quotas", json={**quota, **wrong}))["status"] in {404, 422}, wrong
    foreign = {"scope": "workspace", "scope_id": "other", "meter": "tokens", "window": "day", "limit": 1}
    assert (await api.call("ada", "PUT", "/quotas", json=foreign))["status"] == 404
    removed = "/quotas?scope=app&scope_id=acme/hello&meter=tokens&window=day"
    assert (await api.call("ada", "DELETE", removed))["limit"] is None
    assert (await api.call("ada", "DELETE", removed))["status"] == 404
    assert (await api.call("ann", "GET", "/retention")) == {"days": 30}
    assert (await api.call("ann", "PUT", "/retention", json={"days": 1}))["status"] == 403
    assert (await api.call("ada", "PUT", "/retention", json={"days": 1})) == {"days": 1}
    assert (await api.call("ada", "PUT", "/retention", json={"days": True}))["status"] == 422


async def test_tokens_members_and_invitations_are_made_and_ended(api: Api) -> None:
    """12-4."""
    asked = {"scopes": ["read"], "days": 1, "name": "ci"}
    made = await api.call("ada", "POST", "/tokens", json=asked)
    api.tokens["new"] = made["token"]
    assert (await api.call("new", "GET", "/installations"))["items"] == []
    assert (await api.call("new", "POST", "/tokens", json=asked))["code"] == "scope-missing"
    await api.call("ada", "DELETE", f"/tokens/{made['id']}")
    assert (await api.call("new", "GET", "/installations"))["status"] == 401
    assert (await api.call("ada", "DELETE", "/tokens/nothing"))["status"] == 404

    users = {each["name"]: each for each in (await api.call("ada", "GET", "/users"))["items"]}
    assert (users["ann"]["role"], users["eve"]["role"]) == ("member", "viewer")
    ann = users["ann"]["id"]
    assert (await api.call("ann", "GET", "/users"))["code"] == "scope-missing"
    assert (await api.call("ada", "PATCH", f"/users/{ann}", json={"role": "viewer"})) == {"id": ann}
    assert (await api.call("ann", "POST", "/installation-plans", json={"app": "acme/hello"}))["code"] == "scope-missing"
    assert (await api.call("ada", "PATCH", f"/users/{ann}", json={"role": "owner"}))["status"] == 422
    assert (await api.call("ada", "DELETE", "/users/local"))["status"] == 422
    await api.call("ada", "DELETE", f"/users/{ann}")
    assert (await api.call("ann", "GET", "/installations"))["status"] == 401

    invited = await api.call("ada", "POST", "/invitations", json={"email": "New@Example.com"})
    [found] = (await api.call("ada", "GET", "/invitations"))["items"]
    assert (found["id"], found["email"], found["role"]) == (invited["id"], "new@example.com", "member")
    assert (await api.client.get(invited["path"])).status_code == 200
    refused = await api.call("ada", "POST", "/invitations", json={"email": "x@example.com", "role": "owner"})
    assert refused["status"] == 403
    await api.call("ada", "DELETE", f"/invitations/{invited['id']}")
    assert (await api.call("ada", "GET", "/invitations"))["items"] == []


async def test_models_are_added_by_administrators_of_the_host_with_a_key_of_its_secrets(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12-4."""

    async def known_of(_gateway: Gateway, _model: str) -> tuple[dict[str, Any], frozenset[str]]:
        return {}, frozenset({"openai"})  # without the second that litellm takes

    monkeypatch.setattr(Gateway, "known_of", known_of)
    new = {"name": "mine", "litellm": "openai/m", "api_base": "http://127.0.0.1:9/v1", "key": "secret:k"}
    assert (await api.call("ann", "POST", "/models", json=new))["code"] == "scope-missing"
    assert (await api.call("ada", "POST", "/models", json=new))["name"] == "mine"
    assert (await api.call("ada", "POST", "/models", json=new))["status"] == 409
    # A variable of the server's environment, or a file of its disk, is not for who only has a token.
    for more in ({"key": "env:HOME"}, {"key": "sk-123"}, {"gguf": "/etc/passwd"}, {"litellm": "nobody/x"}):
        refused = await api.call("ada", "POST", "/models", json={**new, "name": "other", **more})
        assert refused["status"] == 422, more
    assert (await api.call("ada", "DELETE", "/models/mine")) == {"name": "mine"}
    assert (await api.call("ada", "DELETE", "/models/smollm2"))["status"] == 422
    with api.database.write() as session:
        people.add_user(session, "Zoe", "zoe@example.com")
        zoe = people.by_email(session, "zoe@example.com")
        assert zoe is not None
        people.add_member(session, "elsewhere", zoe.id, Role.OWNER)
        there = Principal("elsewhere", zoe.id)
        api.tokens["zoe"] = create_token(session, there, scopes=[TokenScope.ADMIN]).token
    assert (await api.call("zoe", "POST", "/models", json=new))["status"] == 404
    assert (await api.call("zoe", "PUT", "/secrets/openai", json={"value": "k"}))["status"] == 404


async def test_what_is_not_the_callers_is_not_there(api: Api) -> None:
    """12-4: another workspace's installation, and an app that the token does not reach."""
    await api.install()
    installation = await api.installation()
    with api.database.write() as session:
        zoe = people.add_user(session, "Zoe", "zoe@example.com")
        people.add_member(session, "elsewhere", zoe.id, Role.OWNER)
        there = Principal("elsewhere", zoe.id)
        api.tokens["zoe"] = create_token(session, there, scopes=[TokenScope.ADMIN]).token
    changes: list[tuple[str, str, Any]] = [
        ("GET", f"/installations/{installation}/config", None),
        ("PATCH", f"/installations/{installation}/config", {"config": {}}),
        ("POST", f"/installations/{installation}/rollback", None),
        ("DELETE", f"/installations/{installation}?data=delete", None),
        ("PATCH", f"/installations/{installation}/grants/http", {"scope": {}}),
        ("DELETE", f"/installations/{installation}/grants/http", None),
    ]
    for method, path, document in changes:
        for who in ("zoe", "bound"):
            assert (await api.call(who, method, path, json=document))["status"] == 404, path
        for who in ("eve", "runner"):
            assert (await api.call(who, method, path, json=document))["code"] == "scope-missing", path
    assert (await api.call("bound", "GET", "/apps/acme/hello/storage"))["status"] == 404
    assert (await api.call("bound", "POST", "/installation-plans", json={"app": "acme/hello"}))["status"] == 404
    assert (await api.call("zoe", "DELETE", f"/users/{api.tokens['ann id']}"))["status"] == 404


async def test_a_bound_token_installs_nothing_through_a_dependency(api: Api) -> None:
    """12-4."""
    api.publish("1.0.0", '\n[dependencies]\n"acme/hello" = ">=1"\n', app="acme/other")
    refused = await api.call("bound", "POST", "/installation-plans", json={"app": "acme/other"})
    assert refused["status"] == 404


async def test_the_policy_holds_over_rest_and_an_administrator_approves(api: Api) -> None:
    """12-3."""
    policy = {
        "who_installs": "members", "approve_capabilities": ["http"], "approve_sources": [], "approve_risk": None,
        "upgrades": "patches",
    }  # fmt: skip
    assert (await api.call("ann", "PUT", "/policy", json=policy))["code"] == "scope-missing"
    for wrong in ({"approve_capabilities": ["x"]}, {"upgrades": "some"}, {"more": 1}, {"who_installs": None}):
        assert (await api.call("ada", "PUT", "/policy", json={**policy, **wrong}))["status"] == 422
    assert await api.call("ada", "PUT", "/policy", json=policy) == policy == await api.call("ann", "GET", "/policy")
    assert (await api.install())["code"] == "approval-needed"
    assert (await api.call("ann", "GET", "/installations"))["items"] == []
    [waits] = (await api.call("ann", "GET", "/installation-requests"))["items"]
    assert (waits["app"], waits["user"]) == ("acme/hello", api.tokens["ann id"])
    assert (await api.call("bob", "GET", "/installation-requests"))["items"] == []
    path = f"/installation-requests/{waits['id']}"
    assert (await api.call("ann", "POST", f"{path}/approval"))["code"] == "scope-missing"
    assert (await api.call("bob", "DELETE", path))["status"] == 404
    [approved] = (await api.call("ada", "POST", f"{path}/approval"))["items"]
    assert approved["outcome"] == "installed"
    assert (await api.call("ada", "POST", f"{path}/approval"))["status"] == 404
    # An administrator's token without the scope admin is held to it, too.
    await api.call("ada", "DELETE", f"/installations/{await api.installation()}?data=keep")
    with api.database.write() as session:
        me = Principal(user=api.tokens["ada id"])
        api.tokens["ada install"] = create_token(session, me, scopes=[TokenScope.INSTALL]).token
    assert (await api.install("ada install"))["code"] == "approval-needed"
    await api.call("ada", "PUT", "/policy", json={**policy, "who_installs": "administrators"})
    assert (await api.install())["code"] == "policy-forbids"
    [installed] = (await api.install("ada"))["items"]
    assert installed["outcome"] == "installed"
