"""Users, and their roles in workspaces."""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from sqlmodel import Session, col, select

from llmasos.database.engine import ReadSession, WriteSession
from llmasos.errors import Conflict, Invalid, NotFound
from llmasos.i18n import _
from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.kernel.invocation import Principal
from llmasos.printable import hidden_character
from llmasos_server.accounts.tables import Member, User, WebSession
from llmasos_server.rest.identity import TokenScope

MAX_NAME: Final = 80
# Nothing is sent to it: it is a name to sign in with, and only its shape is checked.
_EMAIL: Final = re.compile(r"[^\s@<>\"'(),:;\\]{1,64}@[^\s@<>\"'(),:;\\]{1,180}")


class Role(StrEnum):
    """What a member may do in a workspace; each may what the next may."""

    OWNER = "owner"
    """Everything, and appoint owners."""
    ADMIN = "admin"
    """Members, policy, models, quotas, audit."""
    MEMBER = "member"
    """Install and run apps, within the workspace's policy."""
    VIEWER = "viewer"
    """See what is installed and one's own usage."""

    @property
    def scopes(self) -> frozenset[TokenScope]:
        """What it allows, in the scopes of tokens."""
        return _SCOPES[self]

    def narrow(self, scopes: Iterable[TokenScope]) -> frozenset[TokenScope]:
        """Those of `scopes` that the role allows; of `admin`, if it does not allow that, what it allows instead."""
        asked = frozenset(scopes)
        return frozenset(TokenScope) & self.scopes if TokenScope.ADMIN in asked else asked & self.scopes

    def may_appoint(self, role: Role) -> bool:
        """Whether a member of this role may give, change or take away another's `role`."""
        return self is Role.OWNER or (self is Role.ADMIN and role is not Role.OWNER)


_SCOPES: Final = {
    Role.OWNER: frozenset(TokenScope),
    Role.ADMIN: frozenset(TokenScope),
    Role.MEMBER: frozenset({TokenScope.RUN, TokenScope.READ, TokenScope.INSTALL}),
    Role.VIEWER: frozenset({TokenScope.READ}),
}


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member as the workspace's administrators see it."""

    id: str
    name: str
    email: str | None
    role: Role
    joined_at: datetime
    disabled: bool


def normal_email(text: str) -> str:
    """An address as it is compared and stored: NFKC, in lower case.

    Raises:
        Invalid: It is no address of electronic mail.
    """
    address = unicodedata.normalize("NFKC", text).strip()
    if not _EMAIL.fullmatch(address) or hidden_character(address):
        raise Invalid(_("{text!r} is not an e-mail address such as ann@example.com.", text=text[:100]))
    return address.casefold()


def normal_name(text: str) -> str:
    """A person's name as it is shown.

    Raises:
        Invalid: It is empty, too long, or has characters that are not visible.
    """
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name or len(name) > MAX_NAME or hidden_character(name):
        raise Invalid(_("A name has 1 to {most} visible characters.", most=MAX_NAME))
    return name


def add_user(session: WriteSession, name: str, email: str | None) -> User:
    """Make a user, who is a member of no workspace yet.

    Raises:
        Conflict: Another user has that address.
        Invalid: The name or the address is not one.
    """
    address = None if email is None else normal_email(email)
    if address is not None and by_email(session, address) is not None:
        raise Conflict(_("There is a user with the address {email}; ask that person to sign in.", email=address))
    user = User(id=uuid.uuid4().hex, name=normal_name(name), email=address, created_at=datetime.now(UTC))
    session.add(user)
    session.flush()
    return user


def user_named(session: Session, user_id: str) -> User | None:
    """A user who may act: None if there is none, or the user is disabled."""
    user = session.get(User, user_id)
    return None if user is None or user.disabled_at is not None else user


def by_email(session: ReadSession | WriteSession, address: str) -> User | None:
    """The user with an address, in the form of `normal_email`."""
    return session.exec(select(User).where(User.email == address)).first()


def id_of(session: ReadSession | WriteSession, name: str) -> str:
    """The id of the user who is named by it, or by an address."""
    if "@" not in name:
        return name
    user = by_email(session, normal_email(name))
    return name if user is None else user.id


def require_member(session: ReadSession | WriteSession, workspace: str, user_id: str) -> None:
    """Refuse whoever is no member.

    Raises:
        NotFound: The workspace has no such member.
    """
    if session.get(Member, (workspace, user_id)) is None:
        raise _no_member(user_id)


def role_of(session: Session, workspace: str, user_id: str) -> Role | None:
    """A user's role in a workspace now; None if the user is no member of it, or disabled."""
    member = session.get(Member, (workspace, user_id))
    if member is None or user_named(session, user_id) is None:
        return None
    return Role(member.role)


def is_administrator(session: Session, workspace: str, user_id: str) -> bool:
    """Whether a user administers a workspace now."""
    return role_of(session, workspace, user_id) in {Role.OWNER, Role.ADMIN}


def workspaces_of(session: ReadSession | WriteSession, user_id: str) -> list[str]:
    """The workspaces that a user is a member of, the first joined first."""
    query = select(Member.workspace_id).where(Member.user_id == user_id)
    return list(session.exec(query.order_by(col(Member.joined_at), col(Member.workspace_id))))


def members(session: ReadSession | WriteSession, workspace: str) -> list[MemberView]:
    """Every member of a workspace, by name."""
    query = (
        select(User, Member)
        .join(Member, col(Member.user_id) == User.id)
        .where(Member.workspace_id == workspace)
        .order_by(col(User.name), col(User.id))
    )
    return [
        MemberView(user.id, user.name, user.email, Role(member.role), member.joined_at, user.disabled_at is not None)
        for user, member in session.exec(query)
    ]


def add_member(session: WriteSession, workspace: str, user_id: str, role: Role) -> None:
    """Make a user a member; one who is a member already keeps the role.

    The caller audits it: by an invitation, or at the first start.
    """
    if session.get(Member, (workspace, user_id)) is None:
        session.add(Member(workspace_id=workspace, user_id=user_id, role=role, joined_at=datetime.now(UTC)))
        session.flush()


def set_role(session: WriteSession, by: Principal, user_id: str, role: Role) -> None:
    """Give a member another role, in force at that user's next request.

    Raises:
        NotFound: The workspace has no such member.
        Invalid: `by` may not appoint or depose that role, or the workspace would have no owner.
    """
    member = _member(session, by, user_id)
    _check_may(session, by, Role(member.role), role)
    if member.role == Role.OWNER and role is not Role.OWNER:
        _check_another_owner(session, by.workspace, user_id)
    member.role = role
    session.add(member)
    _audit(session, by, "member.role", user_id, role)


def remove_member(session: WriteSession, by: Principal, user_id: str) -> None:
    """Take a user out of a workspace; the user's tokens and sessions in it are dead from now on.

    Raises:
        NotFound: The workspace has no such member.
        Invalid: `by` may not depose that role, or the workspace would have no owner.
    """
    member = _member(session, by, user_id)
    role = Role(member.role)
    if by.user != user_id:
        _check_may(session, by, role)
    if role is Role.OWNER:
        _check_another_owner(session, by.workspace, user_id)
    session.delete(member)
    for row in session.exec(
        select(WebSession).where(
            WebSession.user_id == user_id, WebSession.workspace_id == by.workspace, col(WebSession.ended_at).is_(None)
        )
    ):
        row.ended_at = datetime.now(UTC)
    _audit(session, by, "member.remove", user_id, role)


def _member(session: WriteSession, by: Principal, user_id: str) -> Member:
    member = session.get(Member, (by.workspace, user_id))
    if member is None:
        raise _no_member(user_id)
    return member


def _no_member(user_id: str) -> NotFound:
    return NotFound(_("The workspace has no member {user!r}; `llmasos users list` shows them.", user=user_id[:64]))


def _check_may(session: WriteSession, by: Principal, *roles: Role) -> None:
    own = role_of(session, by.workspace, by.user)
    for role in roles:
        if own is None or not own.may_appoint(role):
            raise Invalid(_("Only an owner of the workspace may appoint or remove an owner."))


def _check_another_owner(session: WriteSession, workspace: str, user_id: str) -> None:
    owners = select(Member).where(Member.workspace_id == workspace, Member.role == Role.OWNER)
    if session.exec(owners.where(Member.user_id != user_id)).first() is None:
        raise Invalid(_("A workspace needs an owner: make another member an owner first."))


def _audit(session: WriteSession, by: Principal, event: str, user_id: str, role: Role) -> None:
    audit.record(session, Line(by.workspace, by.user, event, detail={"user": user_id, "role": role.value}))
