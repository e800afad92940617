"""`/api/v1/installation-plans` and `/installations`: plans changes of what is installed, and carries them out."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import Path, Query, Request
from pydantic import Field
from sqlmodel import Session

from llmasos.errors import (
    BundleRejected,
    Conflict,
    ConsentNeeded,
    Denied,
    Invalid,
    LlmasosError,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from llmasos.i18n import _
from llmasos.installs import repository
from llmasos.installs.installer import Installer
from llmasos.installs.plan import InstallPlan
from llmasos.installs.policy import ApprovalNeeded, PolicyForbids
from llmasos.installs.resolve import parse_requirement
from llmasos.installs.schemas import plan_document
from llmasos.installs.service import ConsentAnswers, InstallOutcome, InstallResult
from llmasos_server.rest.bodies import BODY_ERRORS, Document, documents_router
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import Caller, MayInstall
from llmasos_server.rest.problems import Problem, ScopeMissing, problem_of, responses
from llmasos_server.rest.schemas import ApiModel

router = documents_router("installations")

InstallationId = Annotated[str, Path(max_length=64)]
_CHANGE = responses(
    Unauthenticated, ScopeMissing, PolicyForbids, NotFound, Conflict, Invalid, LlmasosError, Unavailable
)
_PLAN = responses(
    *(Unauthenticated, ScopeMissing, Denied, NotFound, Conflict, Invalid, BundleRejected),
    *(*BODY_ERRORS, LlmasosError, Unavailable),
)
_SMALL_CHANGE = responses(Unauthenticated, ScopeMissing, PolicyForbids, NotFound, Invalid, *BODY_ERRORS)


class ConsentOutdated(Conflict):
    """The plan is not the one that was consented to: ask for it again, read it, and send its new consent."""

    code = "consent-outdated"


class AskedPlan(Document):
    """What is to be installed or upgraded."""

    app: str = Field(
        max_length=300,
        description="publisher/name, with @1.2.0 or a specifier such as >=1,<2.",
        examples=["acme/translator@1.2.0"],
    )
    upgrade: bool = Field(default=False, description="Upgrade the installed app, rather than install it.")


class AgreedPlan(AskedPlan):
    """A plan that was read, and the decisions on it."""

    consent: str = Field(
        pattern="^[0-9a-f]{64}$", description="`consent` of the plan that was read.", examples=["9f" * 32]
    )
    declined: dict[str, list[str]] = Field(
        default_factory=dict, description="By app, the optional capabilities that it does not get.", examples=[{}]
    )
    config: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="By app, the values of its settings; the others keep theirs.", examples=[{}]
    )


class PlanView(ApiModel):
    """What an install or an upgrade would do and ask for. Nothing is changed yet."""

    consent: str = Field(description="What to send to agree to exactly this plan.", examples=["9f" * 32])
    app: str
    version: str = Field(description="The version of the app once the plan is carried out.")
    needs_consent: bool = Field(description="Whether it asks for anything that was not agreed to.")
    steps: list[dict[str, Any]] = Field(
        description="Each app that changes, dependencies first: its digest, permissions, limits and risks.",
        examples=[[]],
    )


class ChangeView(ApiModel):
    """How one app was changed."""

    id: str = Field(description="The installation's id.")
    app: str
    version: str
    outcome: InstallOutcome = Field(description="What was done.", examples=["installed"])
    reset_settings: list[str] = Field(
        description="Settings whose value the release does not take; they have their default now.", examples=[[]]
    )
    problem: Problem | None = Field(
        description="How the app's own code for the change failed; the change stands.", examples=[None]
    )

    @classmethod
    def of(cls, result: InstallResult, locale: str) -> ChangeView:
        """As the installer returns it."""
        failed = result.failure
        return cls(
            id=result.installation_id,
            app=result.app_id,
            version=result.version,
            outcome=result.outcome,
            reset_settings=list(result.reset_settings),
            problem=None if failed is None else problem_of(failed, locale=locale),
        )


class ChangesView(ApiModel):
    """Every app that a plan changed, dependencies first."""

    items: list[ChangeView]


class SettingsView(ApiModel):
    """The settings of an installed app."""

    app: str
    config: dict[str, Any] = Field(description="The values of its settings.", examples=[{"formality": "neutral"}])
    fields: dict[str, Any] = Field(
        description="Each setting's type and title, as the manifest writes it.", examples=[{}]
    )


class NewSettings(Document):
    """Settings to change."""

    config: dict[str, Any] = Field(
        description="The values to change; the others stay.", examples=[{"formality": "formal"}]
    )


class NarrowedGrant(Document):
    """A narrower grant."""

    scope: dict[str, Any] = Field(
        description="The fields to narrow, as the manifest writes them; the others stay.",
        examples=[{"hosts": ["https://api.example.com"]}],
    )


def installer_of(request: Request, caller: Caller) -> Installer:
    """What changes the server's installations, for a caller; without the scope admin, as for any member."""
    installer: Installer = request.app.state.installer_of()
    return installer if caller.is_admin else installer.for_member()


@router.post("/installation-plans", operation_id="plan_installation", summary="Plan an install", responses=_PLAN)
def plan_installation(request: Request, caller: MayInstall, asked: AskedPlan) -> PlanView:
    """What installing or upgrading an app would do and ask for. Show it, then send its `consent` to /installations."""
    plan = _plan(request, caller, asked)
    return PlanView(
        consent=plan.digest,
        app=plan.app_id,
        version=plan.version,
        needs_consent=plan.needs_consent,
        steps=plan_document(plan, caller.principal.locale),
    )


@router.post(
    "/installations",
    operation_id="install",
    summary="Install or upgrade an app",
    responses={
        **_PLAN,
        **responses(ConsentNeeded, PolicyForbids, ApprovalNeeded, ScopeMissing, Conflict, ConsentOutdated),
    },
)
async def install(request: Request, caller: MayInstall, agreed: AgreedPlan) -> ChangesView:
    """Carry out a plan that was read and agreed to, completely or not at all. Idempotent.

    If the plan would now do or ask for anything else than what was agreed to, nothing is changed. What the workspace's
    policy wants an administrator to approve is kept as a request, and refused with `approval-needed`.
    """
    plan = await asyncio.to_thread(_plan, request, caller, agreed)
    if plan.digest != agreed.consent and plan.steps:
        raise ConsentOutdated
    answers = ConsentAnswers(
        agreed=True,
        declined={app: frozenset(names) for app, names in agreed.declined.items()},
        config=agreed.config,
    )
    results = await installer_of(request, caller).carry_out(plan, answers, caller.principal.user)
    return ChangesView(items=[ChangeView.of(each, caller.principal.locale) for each in results])


@router.post("/installations/{installation}/rollback", operation_id="roll_back", summary="Roll back", responses=_CHANGE)
async def roll_back(request: Request, caller: MayInstall, installation: InstallationId) -> ChangeView:
    """Return to the release that ran before, with the grants that it had and that were not revoked since."""
    me = caller.principal
    app = _app_of(request, caller, installation)
    return ChangeView.of(await installer_of(request, caller).rollback(me.workspace, app, me.user), me.locale)


@router.delete("/installations/{installation}", operation_id="uninstall", summary="Remove an app", responses=_CHANGE)
async def uninstall(
    request: Request,
    caller: MayInstall,
    installation: InstallationId,
    data: Annotated[Literal["keep", "delete"], Query(description="What becomes of what it stored, for all users.")],
) -> ChangeView:
    """End the app's invocations, and remove it with its grants and the quotas that it brought."""
    me = caller.principal
    app = _app_of(request, caller, installation)
    result = await installer_of(request, caller).uninstall(me.workspace, app, me.user, delete_data=data == "delete")
    return ChangeView.of(result, me.locale)


@router.get(
    "/installations/{installation}/config",
    operation_id="read_settings",
    summary="Read settings",
    responses=responses(Unauthenticated, ScopeMissing, NotFound),
)
def read_settings(request: Request, caller: MayInstall, installation: InstallationId) -> SettingsView:
    """The settings of an installed app, and the fields that they have."""
    return _settings(request, caller, _app_of(request, caller, installation))


@router.patch(
    "/installations/{installation}/config",
    operation_id="change_settings",
    summary="Change settings",
    responses=_SMALL_CHANGE,
)
def change_settings(
    request: Request, caller: MayInstall, installation: InstallationId, changed: NewSettings
) -> SettingsView:
    """Change settings of an installed app; its next run has them."""
    me, app = caller.principal, _app_of(request, caller, installation)
    installer_of(request, caller).configure(me.workspace, app, changed.config, me.user)
    return _settings(request, caller, app)


@router.patch(
    "/installations/{installation}/grants/{capability}",
    operation_id="narrow_grant",
    summary="Narrow a grant",
    responses=_SMALL_CHANGE,
)
def narrow_grant(
    request: Request,
    caller: MayInstall,
    installation: InstallationId,
    capability: Annotated[str, Path(max_length=64)],
    narrowed: NarrowedGrant,
) -> ChangeView:
    """Narrow what an app may do with a capability, at once: running invocations are held to it too."""
    me, app = caller.principal, _app_of(request, caller, installation)
    result = installer_of(request, caller).narrow(me.workspace, app, capability, narrowed.scope, user=me.user)
    return ChangeView.of(result, me.locale)


@router.delete(
    "/installations/{installation}/grants/{capability}",
    operation_id="revoke_grant",
    summary="Revoke a grant",
    responses=responses(Unauthenticated, ScopeMissing, NotFound, Invalid, LlmasosError),
)
async def revoke_grant(
    request: Request,
    caller: MayInstall,
    installation: InstallationId,
    capability: Annotated[str, Path(max_length=64)],
    host: Annotated[
        str | None,
        Query(max_length=255, description="Only this host out of a grant of http, as the grant writes it."),
    ] = None,
) -> ChangeView:
    """Take a capability from an app at once, or one host out of its grant of http. Installing again asks for it."""
    me, app, installer = caller.principal, _app_of(request, caller, installation), installer_of(request, caller)
    if host is None:
        result = await installer.revoke(me.workspace, app, capability, me.user)
    elif capability == "http":
        result = await installer.revoke_host(me.workspace, app, host, me.user)
    else:
        raise Invalid(_("Only a grant of http has hosts."))
    return ChangeView.of(result, me.locale)


def _plan(request: Request, caller: Caller, asked: AskedPlan) -> InstallPlan:
    """Plan what is asked for.

    Raises:
        NotFound: There is no such app, or the token does not reach it or one that it depends on.
    """
    wanted, installer = parse_requirement(asked.app), installer_of(request, caller)
    if not caller.reaches(wanted.app_id):
        raise NotFound
    make = installer.plan_upgrade if asked.upgrade else installer.plan_install
    plan = make(caller.principal.workspace, wanted)
    if not all(caller.reaches(step.app_id) for step in plan.steps):
        raise NotFound(_("{app} depends on an app that this token does not reach.", app=plan.app_id))
    return plan


def _app_of(request: Request, caller: Caller, installation: str) -> str:
    """The app of an installation of the caller's workspace."""
    with host_of(request).database.read() as session:
        return installed(session, caller, installation)


def installed(session: Session, caller: Caller, installation: str) -> str:
    """The app of an installation that the caller reaches.

    Raises:
        NotFound: The workspace has no such installation, or the token does not reach its app.
    """
    found = repository.installation_of(session, caller.principal.workspace, installation)
    if found is None or not caller.reaches(found.app_id):
        raise NotFound
    return found.app_id


def _settings(request: Request, caller: Caller, app: str) -> SettingsView:
    with host_of(request).database.read() as session:
        _found, release = repository.require_current(session, caller.principal.workspace, app)
        return SettingsView(app=app, config=dict(release.config), fields=dict(release.manifest["config"]))
