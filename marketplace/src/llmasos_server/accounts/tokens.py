"""Tokens: creates, authenticates and revokes them.

A token is a credential with the prefix `llmasos_`, by which scanners of leaked secrets find it. It allows what its
scopes say, and no more than the role of its user allows at this instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from llmasos.bundles.manifest import APP_ID
from llmasos.database.engine import Database, WriteSession
from llmasos.errors import Invalid, NotFound
from llmasos.i18n import _
from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.kernel.invocation import Principal
from llmasos_server.accounts import people, repository
from llmasos_server.accounts.credentials import new_credential, parse, row_of, utc
from llmasos_server.accounts.tables import ApiToken
from llmasos_server.rest.identity import Caller, TokenScope

PREFIX = "llmasos_"
_APP = "app:"
# People need to know whether a token was used this week; a write at every request would not be worth its cost.
USE_NOTED_EVERY = timedelta(minutes=1)
DEFAULT_LIFE_DAYS = 90


@dataclass(frozen=True, slots=True)
class NewToken:
    """A new token, which is shown once."""

    id: str
    token: str


def create_token(
    session: WriteSession,
    principal: Principal,
    *,
    name: str = "",
    scopes: Iterable[TokenScope] = (TokenScope.RUN, TokenScope.READ),
    apps: Iterable[str] = (),
    life: timedelta | None = timedelta(days=DEFAULT_LIFE_DAYS),
) -> NewToken:
    """Create a token that authenticates `principal`.

    Args:
        session: Stores it; the caller commits.
        principal: Whom it authenticates.
        name: The owner's name for it.
        scopes: What it allows.
        apps: The only apps that it may use; empty: every app of the workspace.
        life: How long it is valid; None: until revoked.

    Raises:
        Invalid: There is no scope, an app's id is not valid, or the life is under a day.
    """
    held = sorted(set(scopes))
    bounds = sorted(set(apps))
    if not held:
        raise Invalid(_("A token needs a scope: run, read, install or admin."))
    for app in bounds:
        if not APP_ID.fullmatch(app):
            raise Invalid(
                _("{app!r} is not an app's id such as acme/translator.", app=app),
            )
    if bounds and TokenScope.ADMIN in held:
        raise Invalid(
            _("A token with the scope admin reaches every app: leave out --app or that scope."),
        )
    if life is not None and life <= timedelta(0):
        raise Invalid(_("A token must be valid for at least a day."))
    made = new_credential(PREFIX)
    now = datetime.now(UTC)
    session.add(
        ApiToken(
            id=made.id,
            name=name,
            hash=made.hash,
            workspace_id=principal.workspace,
            user_id=principal.user,
            scopes=[*held, *(_APP + app for app in bounds)],
            created_at=now,
            expires_at=None if life is None else now + life,
        )
    )
    detail = {"token": made.id, "scopes": [*held, *bounds]}
    audit.record(session, Line(principal.workspace, principal.user, "token.create", detail=detail))
    return NewToken(id=made.id, token=made.text)


def revoke_token(session: WriteSession, by: Principal, token_id: str) -> None:
    """Revoke a token of the workspace of whoever asks. Idempotent.

    Raises:
        NotFound: The workspace has no such token.
    """
    token = repository.by_id(session, token_id)
    if token is None or token.workspace_id != by.workspace:
        raise NotFound(
            _("There is no token {token!r}; `llmasos tokens list` shows them.", token=token_id),
        )
    if token.revoked_at is None:
        token.revoked_at = datetime.now(UTC)
        audit.record(session, Line(by.workspace, by.user, "token.revoke", detail={"token": token_id}))


def revoke_own(session: WriteSession, principal: Principal, token_id: str) -> None:
    """Revoke a token of the caller's own. Idempotent.

    Raises:
        NotFound: The caller has no such token in this workspace.
    """
    token = repository.by_id(session, token_id)
    if token is None or token.user_id != principal.user:
        raise NotFound(_("You have no such token."))
    revoke_token(session, principal, token_id)


def scopes_of(token: ApiToken) -> tuple[frozenset[TokenScope], frozenset[str] | None]:
    """A token's scopes, and the only apps that it may use, if it is bound to any."""
    apps = frozenset(str(scope).removeprefix(_APP) for scope in token.scopes if str(scope).startswith(_APP))
    known = frozenset(TokenScope(scope) for scope in token.scopes if not str(scope).startswith(_APP))
    return known, apps or None


def state_of(token: ApiToken) -> Literal["good", "expired", "revoked"]:
    """Whether a token is valid now."""
    if token.revoked_at is not None:
        return "revoked"
    expired = token.expires_at is not None and utc(token.expires_at) <= datetime.now(UTC)
    return "expired" if expired else "good"


class TokenAuthenticator:
    """Authenticates the tokens of one database. Implements `llmasos_server.rest.identity.Authenticator`."""

    def __init__(self, database: Database, in_background: Callable[[Callable[[], None]], object]) -> None:
        """Look up tokens in `database`; `in_background` runs what the caller need not wait for."""
        self._database = database
        self._in_background = in_background

    def authenticate(self, token: str) -> Caller | None:
        """Whom a token authenticates; None if it is unknown, expired or revoked."""
        with self._database.read() as session:
            row = row_of(session, ApiToken, parse(token, PREFIX))
            role = None if row is None else people.role_of(session, row.workspace_id, row.user_id)
        if row is None or role is None:
            return None
        if state_of(row) != "good":
            return None
        now = datetime.now(UTC)
        if row.last_used_at is None or now - utc(row.last_used_at) >= USE_NOTED_EVERY:
            self._in_background(lambda: self._note_use(row.id, now))
        scopes, apps = scopes_of(row)
        principal = Principal(workspace=row.workspace_id, user=row.user_id)
        return Caller(principal=principal, scopes=role.narrow(scopes), apps=apps, token_id=row.id)

    def is_good(self, token_id: str) -> bool:
        """Whether an authenticated token is still valid."""
        with self._database.read() as session:
            row = repository.by_id(session, token_id)
            member = row is not None and people.role_of(session, row.workspace_id, row.user_id) is not None
        return row is not None and member and state_of(row) == "good"

    def _note_use(self, token_id: str, at: datetime) -> None:
        with self._database.write() as session:
            repository.note_use(session, token_id, at)
