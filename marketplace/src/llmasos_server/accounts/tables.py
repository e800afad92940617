"""Bearer tokens. Only their hashes are kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel


class ApiToken(SQLModel, table=True):
    """A token that a program sends. Shown once, stored as a SHA-256 hash."""

    __tablename__ = "api_token"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    name: str = ""
    hash: str = Field(unique=True)
    workspace_id: str
    user_id: str
    scopes: list[Any] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
