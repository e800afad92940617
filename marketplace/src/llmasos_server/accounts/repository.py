"""Every query of tokens."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import col, select

from llmasos.database.engine import ReadSession, WriteSession
from llmasos_server.accounts.tables import ApiToken


def by_id(session: ReadSession | WriteSession, token_id: str) -> ApiToken | None:
    """Find a token."""
    return session.get(ApiToken, token_id)


def of_workspace(session: ReadSession, workspace_id: str) -> list[ApiToken]:
    """Every token of a workspace, the newest first."""
    query = select(ApiToken).where(ApiToken.workspace_id == workspace_id)
    return list(session.exec(query.order_by(col(ApiToken.created_at).desc(), col(ApiToken.id))))


def of_user(session: ReadSession, user_id: str, workspace_id: str | None = None) -> list[ApiToken]:
    """The tokens of a user, the newest first: of one workspace, or of all."""
    query = select(ApiToken).where(ApiToken.user_id == user_id)
    if workspace_id is not None:
        query = query.where(ApiToken.workspace_id == workspace_id)
    return list(session.exec(query.order_by(col(ApiToken.created_at).desc(), col(ApiToken.id))))


def note_use(session: WriteSession, token_id: str, at: datetime) -> None:
    """Record when a token was last used."""
    token = session.get(ApiToken, token_id)
    if token is not None:
        token.last_used_at = at
