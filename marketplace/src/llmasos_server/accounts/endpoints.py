"""`/api/v1/tokens`: what programs authenticate with, for administrators."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Request

from llmasos.errors import Unauthenticated
from llmasos_server.accounts import repository
from llmasos_server.accounts.tables import ApiToken
from llmasos_server.accounts.tokens import scopes_of, state_of
from llmasos_server.rest.context import PREFIX, host_of
from llmasos_server.rest.identity import MayAdminister
from llmasos_server.rest.paging import DEFAULT_LIMIT, Page, PageCursor, PageLimit, page_of
from llmasos_server.rest.problems import InvalidCursor, ScopeMissing, responses
from llmasos_server.rest.schemas import ApiModel, utc

router = APIRouter(prefix=PREFIX)

_REFUSED = responses(Unauthenticated, ScopeMissing, InvalidCursor)


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


@router.get("/tokens", operation_id="list_tokens", summary="List tokens", tags=["tokens"], responses=_REFUSED)
def list_tokens(
    request: Request, caller: MayAdminister, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[TokenView]:
    """The tokens of the workspace by id, without their secrets."""
    with host_of(request).database.read() as session:
        rows = repository.of_workspace(session, caller.principal.workspace)
        shown, following = page_of(rows, lambda row: (row.id,), limit, cursor, str)
        return Page(items=[TokenView.of(row) for row in shown], next=following)
