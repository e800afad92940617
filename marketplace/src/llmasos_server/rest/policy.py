"""`/api/v1/policy` and `/installation-requests`: who may install what, and what waits for an administrator."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path, Request
from pydantic import Field

from llmasos.errors import Conflict, Invalid, LlmasosError, NotFound, Unauthenticated, Unavailable
from llmasos.i18n import from_text, render
from llmasos.installs import requests
from llmasos.installs.policy import CapabilityName, Policy, PolicyForbids, Upgrades, policy_of, set_policy
from llmasos.installs.risk import RiskLevel
from llmasos.installs.tables import InstallRequest
from llmasos_server.rest.bodies import BODY_ERRORS, Document, documents_router
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import MayAdminister, MayInstall, MayRead
from llmasos_server.rest.installing import ChangesView, ChangeView, installer_of
from llmasos_server.rest.paging import DEFAULT_LIMIT, Page, PageCursor, PageLimit, page_of
from llmasos_server.rest.problems import InvalidCursor, ScopeMissing, responses
from llmasos_server.rest.schemas import ApiModel, utc

router = documents_router("installations")

RequestId = Annotated[str, Path(max_length=64, description="The request's id.")]
_WHO = Field(description="members or administrators: who may change what is installed.", examples=["members"])
_CAPABILITIES = Field(description="Capabilities that an administrator must approve.", examples=[["secrets"]])
_SOURCES = Field(
    max_length=64, description="Sources that an administrator must approve; `local`: this host.", examples=[[]]
)
_RISK = Field(
    description="An administrator must approve what has a risk of this level or a worse one; null: no level.",
    examples=["danger"],
)


class PolicyView(ApiModel):
    """The policy of a workspace. Administrators are held to none of it but `upgrades`."""

    who_installs: Literal["members", "administrators"] = _WHO
    approve_capabilities: list[CapabilityName] = _CAPABILITIES
    approve_sources: list[str] = _SOURCES
    approve_risk: RiskLevel | None = _RISK
    upgrades: Upgrades

    @classmethod
    def of(cls, policy: Policy) -> PolicyView:
        """As the workspace chose it."""
        return cls.model_validate(policy.model_dump(mode="json"))


class NewPolicy(Document):
    """A policy to choose, as a whole."""

    who_installs: Literal["members", "administrators"] = _WHO
    approve_capabilities: list[CapabilityName] = _CAPABILITIES
    approve_sources: list[str] = _SOURCES
    approve_risk: RiskLevel | None = _RISK
    upgrades: Upgrades


class InstallRequestView(ApiModel):
    """An install or an upgrade that waits for an administrator's approval."""

    id: str
    app: str
    version: str
    upgrade: bool = Field(description="Whether it upgrades an installed app.", examples=[False])
    user: str = Field(description="Who asks for it.", examples=["local"])
    reason: str = Field(description="Why it must be approved.", examples=["acme/translator asks for secrets"])
    requested_at: datetime = Field(description="When it was asked for.", examples=["2026-11-28T09:30:00Z"])

    @classmethod
    def of(cls, row: InstallRequest, locale: str) -> InstallRequestView:
        """As it is stored, in the caller's language."""
        return cls(
            id=row.id,
            app=row.app_id,
            version=row.version,
            upgrade=row.upgrade,
            user=row.user_id,
            reason=render(from_text(row.reason), locale),
            requested_at=utc(row.requested_at),
        )


class SettledRequest(ApiModel):
    """A request that waits no more."""

    id: str


@router.get(
    "/policy", operation_id="read_policy", summary="Read the policy", responses=responses(Unauthenticated, ScopeMissing)
)
def read_policy(request: Request, caller: MayRead) -> PolicyView:
    """Who may install what in the workspace, and what upgrades by itself."""
    with host_of(request).database.read() as session:
        return PolicyView.of(policy_of(session, caller.principal.workspace))


@router.put(
    "/policy",
    operation_id="set_policy",
    summary="Choose the policy",
    responses=responses(Unauthenticated, ScopeMissing, Invalid, *BODY_ERRORS),
)
def choose_policy(request: Request, caller: MayAdminister, new: NewPolicy) -> PolicyView:
    """Choose who may install what from now on. What is installed stays as it is."""
    policy = Policy.model_validate({**new.model_dump(), "approve_capabilities": tuple(new.approve_capabilities)})
    with host_of(request).database.write() as session:
        set_policy(session, caller.principal, policy)
    return PolicyView.of(policy)


@router.get(
    "/installation-requests",
    operation_id="list_installation_requests",
    summary="List requests",
    responses=responses(Unauthenticated, ScopeMissing, InvalidCursor),
)
def list_requests(
    request: Request, caller: MayRead, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[InstallRequestView]:
    """What waits for approval: the caller's own, or with the scope admin the workspace's."""
    me = caller.principal
    with host_of(request).database.read() as session:
        rows = requests.waiting(session, me.workspace, None if caller.is_admin else me.user)
        reached = [row for row in rows if caller.reaches(row.app_id)]
        shown, following = page_of(reached, lambda row: (row.id,), limit, cursor, str)
        return Page(items=[InstallRequestView.of(row, me.locale) for row in shown], next=following)


@router.post(
    "/installation-requests/{install_request}/approval",
    operation_id="approve_installation",
    summary="Approve a request",
    responses=responses(
        *(Unauthenticated, ScopeMissing, PolicyForbids, NotFound, Conflict, Invalid, LlmasosError, Unavailable)
    ),
)
async def approve(request: Request, caller: MayAdminister, install_request: RequestId) -> ChangesView:
    """Carry out a request exactly as its user agreed to it, or change nothing."""
    results = await installer_of(request, caller).approve(caller.principal, install_request)
    return ChangesView(items=[ChangeView.of(each, caller.principal.locale) for each in results])


@router.delete(
    "/installation-requests/{install_request}",
    operation_id="refuse_installation",
    summary="Refuse a request",
    responses=responses(Unauthenticated, ScopeMissing, NotFound),
)
def refuse(request: Request, caller: MayInstall, install_request: RequestId) -> SettledRequest:
    """Refuse a request, or withdraw one's own. Nothing is installed."""
    installer_of(request, caller).refuse(caller.principal, install_request)
    return SettledRequest(id=install_request)
