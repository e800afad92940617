"""Invitations: a link that makes its holder a member of a workspace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlmodel import col, select

from llmasos.database.engine import ReadSession, WriteSession
from llmasos.errors import Conflict, Denied, Invalid, NotFound, Unauthenticated
from llmasos.i18n import _
from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.kernel.invocation import Principal
from llmasos_server.accounts import passwords, people
from llmasos_server.accounts.credentials import Credential, new_credential, parse, row_of, utc
from llmasos_server.accounts.people import Role
from llmasos_server.accounts.tables import Invitation, Member, User

LIFE: Final = timedelta(days=7)


def invite(session: WriteSession, by: Principal, email: str, role: Role) -> Credential:
    """Make an invitation; its text goes into the link, which is shown once.

    Raises:
        Denied: `by` may not appoint that role.
        Conflict: That person is a member already.
        Invalid: The address is not one.
    """
    address = people.normal_email(email)
    own = people.role_of(session, by.workspace, by.user)
    if own is None or not own.may_appoint(role) or own not in {Role.OWNER, Role.ADMIN}:
        raise Denied(_("Only an administrator may invite, and only an owner may invite owners."))
    user = people.by_email(session, address)
    if user is not None and session.get(Member, (by.workspace, user.id)) is not None:
        raise Conflict(_("{email} is a member already; change the role with `llmasos users role`.", email=address))
    now = datetime.now(UTC)
    link = new_credential()
    session.add(
        Invitation(
            id=link.id,
            hash=link.hash,
            workspace_id=by.workspace,
            email=address,
            role=role,
            invited_by=by.user,
            created_at=now,
            expires_at=now + LIFE,
        )
    )
    detail = {"invitation": link.id, "role": role.value}
    audit.record(session, Line(by.workspace, by.user, "member.invite", detail=detail))
    return link


def open_invitations(session: ReadSession, workspace: str) -> list[Invitation]:
    """Those that may still be used, the newest first."""
    query = select(Invitation).where(
        Invitation.workspace_id == workspace, col(Invitation.used_at).is_(None), col(Invitation.revoked_at).is_(None)
    )
    now = datetime.now(UTC)
    rows = session.exec(query.order_by(col(Invitation.created_at).desc(), col(Invitation.id)))
    return [row for row in rows if utc(row.expires_at) > now]


def revoke(session: WriteSession, by: Principal, invitation_id: str) -> None:
    """Make an invitation useless.

    Raises:
        NotFound: The workspace has no such invitation.
    """
    row = session.get(Invitation, invitation_id)
    if row is None or row.workspace_id != by.workspace:
        raise NotFound(_("There is no such invitation; `llmasos users list` shows those that are open."))
    if row.revoked_at is None:
        row.revoked_at = datetime.now(UTC)
        audit.record(session, Line(by.workspace, by.user, "member.uninvite", detail={"invitation": row.id}))


def find(session: ReadSession | WriteSession, text: str) -> Invitation:
    """The invitation of a link, if it may be used now.

    Raises:
        Unauthenticated: It is unknown, used, revoked or expired, or who sent it may not invite any more.
    """
    row = row_of(session, Invitation, parse(text))
    good = (
        row is not None and row.used_at is None and row.revoked_at is None and utc(row.expires_at) > datetime.now(UTC)
    )
    sender = people.role_of(session, row.workspace_id, row.invited_by) if row is not None and good else None
    if row is None or sender is None or not sender.may_appoint(Role(row.role)):
        raise Unauthenticated(_("This invitation was used or taken back, or has expired: ask for a new one."))
    return row


def accept(session: WriteSession, text: str, name: str, password: str) -> User:
    """Become a user and a member, by a link.

    Raises:
        Unauthenticated: As `find`.
        Conflict: There is a user of that address: sign in, then use the link (`join`).
        Invalid: The name or the password will not do.
    """
    row = find(session, text)
    user = people.add_user(session, name, row.email)
    user.password_hash = passwords.hash_of(password, name, row.email)
    _join(session, row, user)
    return user


def join(session: WriteSession, text: str, user: User) -> None:
    """Become a member as the user that one is already.

    Raises:
        Unauthenticated: As `find`.
        Invalid: The invitation is for another address.
    """
    row = find(session, text)
    if user.email != row.email:
        raise Invalid(_("This invitation is for another address than yours: ask for one of your own."))
    _join(session, row, user)


def _join(session: WriteSession, row: Invitation, user: User) -> None:
    row.used_at = datetime.now(UTC)
    session.add(user)
    session.flush()
    people.add_member(session, row.workspace_id, user.id, Role(row.role))
    detail = {"invitation": row.id, "role": row.role}
    audit.record(session, Line(row.workspace_id, user.id, "member.join", detail=detail))
