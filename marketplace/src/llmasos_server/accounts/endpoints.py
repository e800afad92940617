"""`/api/v1/tokens`, `/users` and `/invitations`: who and what may use the workspace, for its administrators."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, TypeAlias

from fastapi import Path, Request
from pydantic import Field

from llmasos.errors import Conflict, Denied, Invalid, NotFound, Unauthenticated
from llmasos_server.accounts import invitations, people, repository
from llmasos_server.accounts.people import MemberView, Role
from llmasos_server.accounts.tables import ApiToken, Invitation
from llmasos_server.accounts.tokens import DEFAULT_LIFE_DAYS, create_token, revoke_token, scopes_of, state_of
from llmasos_server.rest.bodies import BODY_ERRORS, Document, documents_router
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import MayAdminister, TokenScope
from llmasos_server.rest.paging import DEFAULT_LIMIT, Page, PageCursor, PageLimit, page_of
from llmasos_server.rest.problems import InvalidCursor, ScopeMissing, responses
from llmasos_server.rest.schemas import ApiModel, utc

router = documents_router()

RoleName: TypeAlias = Literal["owner", "admin", "member", "viewer"]
ScopeName: TypeAlias = Literal["run", "read", "install", "admin"]
Id = Annotated[str, Path(max_length=64, description="Its id, as the list shows it.")]
_REFUSED = responses(Unauthenticated, ScopeMissing, InvalidCursor)
_ENDED = responses(Unauthenticated, ScopeMissing, NotFound)
_MEMBER = responses(Unauthenticated, ScopeMissing, NotFound, Invalid)


class TokenView(ApiModel):
    """A token, without its secret."""

    id: str
    name: str
    scopes: list[str]
    apps: list[str] | None
    state: Literal["good", "expired", "revoked"]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, row: ApiToken) -> TokenView:
        """As the accounts keep it."""
        scopes, apps = scopes_of(row)
        return cls(
            id=row.id,
            name=row.name,
            scopes=sorted(scopes),
            apps=sorted(apps) if apps else None,
            state=state_of(row),
            created_at=utc(row.created_at),
            expires_at=utc(row.expires_at) if row.expires_at else None,
            last_used_at=utc(row.last_used_at) if row.last_used_at else None,
        )


class AskedToken(Document):
    """A token to make. It never allows more than the role of its user."""

    name: str = Field(default="", max_length=200, description="What it is for.", examples=["nightly job"])
    scopes: list[ScopeName] = Field(
        default=["run", "read"], min_length=1, description="What it allows.", examples=[["run", "read"]]
    )
    apps: list[str] = Field(
        default_factory=list,
        max_length=200,
        description="The only apps that it reaches; none: every app.",
        examples=[[]],
    )
    days: int | None = Field(
        default=DEFAULT_LIFE_DAYS, ge=1, le=3650, description="How long it is good; null: until revoked.", examples=[90]
    )


class NewTokenView(ApiModel):
    """A new token. It is shown once."""

    id: str
    token: str = Field(description="What to send as `Authorization: Bearer …`.", examples=["llmasos_…"])


class UserView(ApiModel):
    """A member of the workspace."""

    id: str = Field(description="The user's id.", examples=["local"])
    name: str
    email: str | None = Field(description="What the user signs in with; null: only by a link.", examples=[None])
    role: RoleName
    joined_at: datetime = Field(description="When the user became a member.", examples=["2026-11-28T09:30:00Z"])
    disabled: bool = Field(description="Whether the user may do nothing, anywhere.", examples=[False])

    @classmethod
    def of(cls, found: MemberView) -> UserView:
        """As the accounts keep it."""
        return cls(
            id=found.id,
            name=found.name,
            email=found.email,
            role=found.role.value,
            joined_at=utc(found.joined_at),
            disabled=found.disabled,
        )


class NewRole(Document):
    """A role to give."""

    role: RoleName


class InvitationView(ApiModel):
    """An invitation that may still be used."""

    id: str
    email: str
    role: RoleName
    expires_at: datetime

    @classmethod
    def of(cls, row: Invitation) -> InvitationView:
        """As the accounts keep it."""
        return cls(id=row.id, email=row.email, role=Role(row.role).value, expires_at=utc(row.expires_at))


class AskedInvitation(Document):
    """Whom to invite."""

    email: str = Field(max_length=254, description="Whom you invite.", examples=["ann@example.com"])
    role: RoleName = Field(default="member")


class NewInvitationView(ApiModel):
    """A new invitation. It is shown once."""

    id: str
    path: str = Field(
        description="The page of this server where its holder joins; hand it over on a safe way.",
        examples=["/invitations/…"],
    )


class EndedView(ApiModel):
    """What was ended."""

    id: str


@router.get("/tokens", operation_id="list_tokens", summary="List tokens", tags=["tokens"], responses=_REFUSED)
def list_tokens(
    request: Request, caller: MayAdminister, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[TokenView]:
    """The tokens of the workspace by id, without their secrets."""
    with host_of(request).database.read() as session:
        rows = repository.of_workspace(session, caller.principal.workspace)
        shown, following = page_of(rows, lambda row: (row.id,), limit, cursor, str)
        return Page(items=[TokenView.of(row) for row in shown], next=following)


@router.post(
    "/tokens",
    operation_id="create_token",
    summary="Create a token",
    tags=["tokens"],
    status_code=201,
    responses=responses(Unauthenticated, ScopeMissing, Invalid, *BODY_ERRORS),
)
def make_token(request: Request, caller: MayAdminister, asked: AskedToken) -> NewTokenView:
    """Make a token that authenticates the caller, in this workspace. It is shown once."""
    with host_of(request).database.write() as session:
        made = create_token(
            session,
            caller.principal,
            name=asked.name,
            scopes=[TokenScope(each) for each in asked.scopes],
            apps=asked.apps,
            life=None if asked.days is None else timedelta(days=asked.days),
        )
    return NewTokenView(id=made.id, token=made.token)


@router.delete(
    "/tokens/{token}", operation_id="revoke_token", summary="Revoke a token", tags=["tokens"], responses=_ENDED
)
def end_token(request: Request, caller: MayAdminister, token: Id) -> EndedView:
    """End a token of the workspace now, and what runs by it. Idempotent."""
    with host_of(request).database.write() as session:
        revoke_token(session, caller.principal, token)
    return EndedView(id=token)


@router.get("/users", operation_id="list_users", summary="List members", tags=["users"], responses=_REFUSED)
def list_users(
    request: Request, caller: MayAdminister, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[UserView]:
    """The members of the workspace, by name."""
    with host_of(request).database.read() as session:
        found = people.members(session, caller.principal.workspace)
    shown, following = page_of(found, lambda each: (each.name, each.id), limit, cursor, str, str)
    return Page(items=[UserView.of(each) for each in shown], next=following)


@router.patch(
    "/users/{user}",
    operation_id="set_role",
    summary="Change a role",
    tags=["users"],
    responses={**_MEMBER, **responses(NotFound, Invalid, *BODY_ERRORS)},
)
def set_role(request: Request, caller: MayAdminister, user: Id, new: NewRole) -> EndedView:
    """Give a member another role, in force at that user's next request. Only an owner appoints or deposes owners."""
    with host_of(request).database.write() as session:
        people.set_role(session, caller.principal, user, Role(new.role))
    return EndedView(id=user)


@router.delete(
    "/users/{user}", operation_id="remove_user", summary="Remove a member", tags=["users"], responses=_MEMBER
)
def remove_user(request: Request, caller: MayAdminister, user: Id) -> EndedView:
    """Take a user out of the workspace; the user's sessions and tokens in it are dead at once."""
    with host_of(request).database.write() as session:
        people.remove_member(session, caller.principal, user)
    return EndedView(id=user)


@router.get(
    "/invitations", operation_id="list_invitations", summary="List invitations", tags=["users"], responses=_REFUSED
)
def list_invitations(
    request: Request, caller: MayAdminister, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[InvitationView]:
    """The invitations that may still be used, by id."""
    with host_of(request).database.read() as session:
        found = invitations.open_invitations(session, caller.principal.workspace)
        shown, following = page_of(found, lambda row: (row.id,), limit, cursor, str)
        return Page(items=[InvitationView.of(row) for row in shown], next=following)


@router.post(
    "/invitations",
    operation_id="invite",
    summary="Invite a member",
    tags=["users"],
    status_code=201,
    responses=responses(Unauthenticated, ScopeMissing, Denied, Conflict, Invalid, *BODY_ERRORS),
)
def invite(request: Request, caller: MayAdminister, asked: AskedInvitation) -> NewInvitationView:
    """Make a link that its holder joins the workspace with, once, within 7 days."""
    with host_of(request).database.write() as session:
        made = invitations.invite(session, caller.principal, asked.email, Role(asked.role))
    return NewInvitationView(id=made.id, path=f"/invitations/{made.text}")


@router.delete(
    "/invitations/{invitation}",
    operation_id="uninvite",
    summary="Take an invitation back",
    tags=["users"],
    responses=_ENDED,
)
def uninvite(request: Request, caller: MayAdminister, invitation: Id) -> EndedView:
    """Take an invitation back: its link is useless from now on. Idempotent."""
    with host_of(request).database.write() as session:
        invitations.revoke(session, caller.principal, invitation)
    return EndedView(id=invitation)
