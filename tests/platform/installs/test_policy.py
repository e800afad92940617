"""12-3: the policy of a workspace: who may install, what must be approved, what upgrades by itself."""

from dataclasses import replace

import pytest
from tests.platform.installs.setting import HTTP, STORAGE, YES, Setting

from llmasos.bundles.testing import MODEL_PERMISSION
from llmasos.errors import Conflict, NotFound
from llmasos.installs import requests
from llmasos.installs.installer import Installer
from llmasos.installs.policy import ApprovalNeeded, Policy, PolicyForbids, policy_of, set_policy
from llmasos.installs.resolve import parse_requirement
from llmasos.installs.service import ConsentAnswers
from llmasos.installs.tables import InstallRequest
from llmasos.kernel.invocation import Principal

ROOT = Principal(user="root")
ANN = Principal(user="ann")
NEEDS_OTHER = '\n[dependencies]\n"acme/other" = ">=1"\n'
ANYWHERE = HTTP.replace("https://a.com", "*").replace("optional = true\n", "")


def choose(setting: Setting, **policy: object) -> None:
    with setting.database.write() as session:
        set_policy(session, ROOT, Policy.model_validate(policy))


def waiting(setting: Setting, user: str | None = None) -> list[InstallRequest]:
    with setting.database.read() as session:
        return requests.waiting(session, "default", user)


@pytest.fixture
def setting(setting: Setting) -> Setting:
    """Root administers the workspace; Ann, who installs, does not."""
    setting.installer = Installer(
        setting.database,
        setting.shelf,
        setting.code,
        lambda _kind: setting.runtime,
        "0.1.0",
        is_administrator=lambda _session, _workspace, user: user == "root",
    )
    return setting


async def test_by_default_a_member_installs_what_the_member_agrees_to(setting: Setting) -> None:
    with setting.database.read() as session:
        assert policy_of(session, "default") == Policy()
    setting.publish(extra=STORAGE + ANYWHERE)
    [result] = await setting.install()
    assert result.outcome == "installed"


async def test_where_administrators_install_a_member_changes_nothing_and_still_revokes(setting: Setting) -> None:
    """12-3."""
    setting.publish(extra=MODEL_PERMISSION + STORAGE)
    await setting.install()
    choose(setting, who_installs="administrators")
    setting.publish("1.1.0", MODEL_PERMISSION)
    setting.publish(app="acme/other")
    with pytest.raises(PolicyForbids):
        await setting.upgrade()
    with pytest.raises(PolicyForbids):
        await setting.install("acme/other")
    with pytest.raises(PolicyForbids):
        await setting.installer.rollback("default", "acme/hello", "ann")
    with pytest.raises(PolicyForbids):
        await setting.installer.uninstall("default", "acme/hello", "ann", delete_data=True)
    with pytest.raises(PolicyForbids):
        setting.installer.configure("default", "acme/hello", {}, "ann")
    assert setting.states() == {"1.0.0": "current"}
    assert waiting(setting) == []
    assert (await setting.installer.revoke("default", "acme/hello", "model", "ann")).outcome == "revoked"
    removed = await setting.installer.uninstall("default", "acme/hello", "root", delete_data=True)
    assert removed.outcome == "uninstalled"


@pytest.mark.parametrize(
    ("policy", "extra", "answers", "needs"),
    [
        ({"approve_capabilities": ["storage"]}, STORAGE, YES, True),
        ({"approve_capabilities": ["storage"]}, MODEL_PERMISSION, YES, False),
        ({"approve_capabilities": ["http"]}, HTTP, YES, True),
        # What is optional and was declined is not asked for.
        ({"approve_capabilities": ["http"]}, HTTP, replace(YES, declined={"acme/hello": frozenset({"http"})}), False),
        ({"approve_risk": "danger"}, STORAGE + ANYWHERE, YES, True),
        ({"approve_risk": "danger"}, HTTP, YES, False),
        ({"approve_risk": "info"}, HTTP, YES, True),
        ({"approve_sources": ["local"]}, "", YES, True),
        ({"approve_sources": ["https://apps.example.com"]}, HTTP, YES, False),
    ],
)
async def test_what_must_be_approved_waits_as_a_request(
    setting: Setting, policy: dict[str, object], extra: str, answers: ConsentAnswers, needs: bool
) -> None:
    """12-3: by capability, risk and source."""
    choose(setting, **policy)
    setting.publish(extra=extra)
    if not needs:
        assert [each.outcome for each in await setting.install(answers=answers)] == ["installed"]
        return
    with pytest.raises(ApprovalNeeded, match="acme/hello"):
        await setting.install(answers=answers)
    assert setting.states() == {}
    assert setting.runtime.prepared == []  # nothing is built for what nobody approved
    [row] = waiting(setting)
    assert (row.user_id, row.app_id, row.version) == ("ann", "acme/hello", "1.0.0")
    assert setting.events()[-1] == "install.request"


async def test_a_member_installs_nothing_past_the_policy_through_a_dependency(setting: Setting) -> None:
    """12-3: the app itself asks for nothing; what it depends on does."""
    choose(setting, approve_capabilities=["storage"])
    setting.publish(extra=STORAGE, app="acme/other")
    setting.publish(extra=NEEDS_OTHER)
    with pytest.raises(ApprovalNeeded, match="acme/other asks for storage"):
        await setting.install()
    assert setting.states() == setting.states("acme/other") == {}


async def test_an_upgrade_and_a_renewed_grant_obey_it_too(setting: Setting) -> None:
    """12-3."""
    setting.publish(extra=MODEL_PERMISSION)
    await setting.install()
    choose(setting, approve_capabilities=["storage", "model"])
    setting.publish("1.1.0", MODEL_PERMISSION)
    assert [each.outcome for each in await setting.upgrade()] == ["upgraded"]  # which asks for nothing new
    setting.publish("1.2.0", MODEL_PERMISSION + STORAGE)
    with pytest.raises(ApprovalNeeded):
        await setting.upgrade()
    # Kept beside the current release, it changes nothing yet.
    assert [each.outcome for each in await setting.upgrade(answers=ConsentAnswers())] == ["waiting"]
    await setting.installer.revoke("default", "acme/hello", "model", "ann")
    with pytest.raises(ApprovalNeeded):
        await setting.install()
    assert setting.grants() == set()


async def test_an_administrator_approves_exactly_what_was_agreed_to(setting: Setting) -> None:
    """12-3."""
    choose(setting, approve_capabilities=["storage"])
    setting.publish(extra=STORAGE + HTTP)
    declined = replace(YES, declined={"acme/hello": frozenset({"http"})})
    for _ in range(2):  # asking again replaces the request
        with pytest.raises(ApprovalNeeded):
            await setting.install(answers=declined)
    [row] = waiting(setting, "ann")
    with pytest.raises(PolicyForbids):
        await setting.installer.approve(ANN, row.id)
    with pytest.raises(NotFound):
        await setting.installer.approve(Principal("elsewhere", "root"), row.id)
    [result] = await setting.installer.approve(ROOT, row.id)
    assert (result.outcome, setting.grants(), waiting(setting)) == ("installed", {"storage"}, [])
    assert setting.events()[-1] == "install.approve"
    with pytest.raises(NotFound):
        await setting.installer.approve(ROOT, row.id)


async def test_a_request_whose_plan_has_changed_is_not_approved(setting: Setting) -> None:
    """12-3: another dependency would be installed by now than the user agreed to."""
    choose(setting, approve_capabilities=["storage"])
    setting.publish(extra=STORAGE, app="acme/other")
    setting.publish(extra=NEEDS_OTHER)
    with pytest.raises(ApprovalNeeded):
        await setting.install()
    setting.publish("1.1.0", STORAGE + HTTP, app="acme/other")
    [row] = waiting(setting)
    with pytest.raises(Conflict):
        await setting.installer.approve(ROOT, row.id)
    assert (setting.states(), len(waiting(setting))) == ({}, 1)
    setting.installer.refuse(ROOT, row.id)
    assert waiting(setting) == []


async def test_a_request_is_withdrawn_by_its_user_and_by_no_other_member(setting: Setting) -> None:
    choose(setting, approve_capabilities=["storage"])
    setting.publish(extra=STORAGE)
    with pytest.raises(ApprovalNeeded):
        await setting.install()
    [row] = waiting(setting)
    with pytest.raises(NotFound):
        setting.installer.refuse(Principal(user="bob"), row.id)
    setting.installer.refuse(ANN, row.id)
    assert (waiting(setting), setting.events()[-1]) == ([], "install.withdraw")


async def test_a_caller_without_an_administrators_scope_is_held_to_it_whoever_it_is(setting: Setting) -> None:
    choose(setting, approve_capabilities=["storage"])
    setting.publish(extra=STORAGE)
    setting.installer = setting.installer.for_member()
    with pytest.raises(ApprovalNeeded):
        await setting.install()


@pytest.mark.parametrize(
    ("upgrades", "version", "extra", "runs"),
    [
        ("nothing", "1.0.1", MODEL_PERMISSION, "1.0.0"),
        ("patches", "1.0.1", MODEL_PERMISSION, "1.0.1"),
        ("patches", "1.1.0", MODEL_PERMISSION, "1.0.0"),
        ("all", "2.0.0", MODEL_PERMISSION, "2.0.0"),
        ("all", "1.0.1", MODEL_PERMISSION + STORAGE, "1.0.0"),
        ("all", "2.0.0rc1", MODEL_PERMISSION, "1.0.0"),
        # An app that it would newly depend on was agreed to by nobody.
        ("all", "1.0.1", MODEL_PERMISSION + NEEDS_OTHER, "1.0.0"),
    ],
)
async def test_what_upgrades_by_itself(setting: Setting, upgrades: str, version: str, extra: str, runs: str) -> None:
    """12-3: nothing, patches without new permissions, or all without new permissions."""
    choose(setting, upgrades=upgrades, who_installs="administrators")
    setting.publish(extra=MODEL_PERMISSION)
    planned = await setting.installer.carry_out(
        setting.installer.plan_install("default", parse_requirement("acme/hello")), YES, "root"
    )
    assert planned[0].outcome == "installed"
    setting.publish(app="acme/other")
    setting.publish(version, extra)
    await setting.installer.upgrade_by_policy("default")
    assert [version for version, state in setting.states().items() if state == "current"] == [runs]
