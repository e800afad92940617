"""Browsers that are signed in.

The cookie is a credential: the id of a row and a secret. The token that forms carry is derived from the same secret, so
that only a page of ours, to which the cookie was sent, can have it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlmodel import col, select

from llmasos.database.engine import Database, ReadSession, WriteSession
from llmasos.errors import NotFound
from llmasos.i18n import _
from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.kernel.invocation import Principal
from llmasos_server.accounts import people
from llmasos_server.accounts.credentials import Credential, new_credential, parse, row_of, utc
from llmasos_server.accounts.people import Role
from llmasos_server.accounts.tables import User, WebSession

# However much it is used, and however little.
LIFE: Final = timedelta(days=30)
IDLE: Final = timedelta(days=7)
SEEN_EVERY: Final = timedelta(minutes=5)
MAX_DEVICE: Final = 200


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who a browser's cookie stands for, now."""

    session_id: str
    principal: Principal
    role: Role
    user: User
    form_token: str
    """What a form that changes something must carry."""


def begin(session: WriteSession, user: User, workspace: str, device: str) -> Credential:
    """Sign a browser in to a workspace. Always a new session: one from before the sign-in is never promoted.

    Args:
        session: The caller commits.
        user: A member of the workspace.
        workspace: Where it starts; see `change_workspace`.
        device: What the browser says that it is.
    """
    now = datetime.now(UTC)
    cookie = new_credential()
    session.add(
        WebSession(
            id=cookie.id,
            hash=cookie.hash,
            user_id=user.id,
            workspace_id=workspace,
            device="".join(each for each in device if each.isprintable())[:MAX_DEVICE],
            created_at=now,
            seen_at=now,
            expires_at=now + LIFE,
        )
    )
    audit.record(session, Line(workspace, user.id, "session.begin", detail={"session": cookie.id}))
    return cookie


class Sessions:
    """Recognises cookies.

    Args:
        database: Where sessions are.
        in_background: Runs what nobody waits for.
        clock: The time, in UTC.
    """

    def __init__(
        self,
        database: Database,
        in_background: Callable[[Callable[[], None]], object],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._in_background = in_background
        self._clock = clock

    def recognise(self, cookie: str) -> SignedIn | None:
        """Who a cookie stands for; None if it is unknown, ended or expired, or its user is no member any more."""
        credential = parse(cookie)
        if credential is None:
            return None
        now = self._clock()
        with self._database.read() as session:
            row = row_of(session, WebSession, credential)
            if row is None or not is_good(row, now):
                return None
            role = people.role_of(session, row.workspace_id, row.user_id)
            user = people.user_named(session, row.user_id)
            if role is None or user is None:
                return None
            session.expunge(user)
        if now - utc(row.seen_at) >= SEEN_EVERY:
            self._in_background(lambda: self._note_seen(row.id, now))
        principal = Principal(row.workspace_id, user.id)
        return SignedIn(row.id, principal, role, user, form_token(credential))

    def is_good(self, session_id: str) -> bool:
        """Whether a session that was recognised still is good."""
        with self._database.read() as session:
            row = session.get(WebSession, session_id)
            return (
                row is not None
                and is_good(row, self._clock())
                and people.role_of(session, row.workspace_id, row.user_id) is not None
            )

    def _note_seen(self, session_id: str, at: datetime) -> None:
        with self._database.write() as session:
            row = session.get(WebSession, session_id)
            if row is not None:
                row.seen_at = at


def is_good(row: WebSession, now: datetime) -> bool:
    """Whether a session was not ended, has not expired, and was used lately."""
    return row.ended_at is None and now < utc(row.expires_at) and now - utc(row.seen_at) < IDLE


def form_token(cookie: Credential) -> str:
    """What a form of this session carries."""
    return hmac.new(cookie.secret.encode(), b"form", hashlib.sha256).hexdigest()


def listed(session: ReadSession, user_id: str) -> list[WebSession]:
    """The sessions of a user that are good now, the last used first."""
    query = select(WebSession).where(WebSession.user_id == user_id, col(WebSession.ended_at).is_(None))
    now = datetime.now(UTC)
    return [row for row in session.exec(query.order_by(col(WebSession.seen_at).desc())) if is_good(row, now)]


def end(session: WriteSession, by: Principal, session_id: str) -> None:
    """End one of the caller's own sessions; to end it again changes nothing.

    Raises:
        NotFound: The caller has no such session.
    """
    row = session.get(WebSession, session_id)
    if row is None or row.user_id != by.user:
        raise NotFound(_("You have no such session."))
    _end(session, row)


def end_others(session: WriteSession, user_id: str, kept: str | None) -> None:
    """End every session of a user but one: after the password or the second factor was changed."""
    query = select(WebSession).where(WebSession.user_id == user_id, col(WebSession.ended_at).is_(None))
    for row in session.exec(query):
        if row.id != kept:
            _end(session, row)


def change_workspace(session: WriteSession, signed_in: SignedIn, workspace: str) -> None:
    """Have a session act in another workspace of its user.

    Raises:
        NotFound: The user is not a member of it; whether it exists is not said.
    """
    row = session.get(WebSession, signed_in.session_id)
    if row is None or people.role_of(session, workspace, signed_in.user.id) is None:
        raise NotFound(_("You are a member of no such workspace."))
    row.workspace_id = workspace


def _end(session: WriteSession, row: WebSession) -> None:
    if row.ended_at is None:
        row.ended_at = datetime.now(UTC)
        audit.record(session, Line(row.workspace_id, row.user_id, "session.end", detail={"session": row.id}))
