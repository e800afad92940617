"""Invocations, and what is kept of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from llmasos.database.columns import Int64


class InvocationRow(SQLModel, table=True):
    """One run of one action."""

    __tablename__ = "invocation"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_invocation_listing", "workspace_id", "started_at"),
        Index("ix_invocation_own", "workspace_id", "user_id", "started_at"),
        Index("ix_invocation_running", "status", "lease_id"),
    )

    id: str = Field(primary_key=True)
    workspace_id: str
    user_id: str
    app_id: str | None = None
    version: str | None = None
    installation_id: str | None = None
    action: str
    parent_id: str | None = None
    status: str = "running"
    """running, succeeded, failed, cancelled."""
    error_code: str | None = None
    error_message: str | None = None
    """A message as `llmasos.i18n.to_text` writes it, to be rendered in its reader's language."""
    started_at: datetime
    ended_at: datetime | None = None
    lease_id: str
    """The process that runs it; once its lease has ended, nothing runs."""
    cancel_requested: bool = False
    """Another process asks the one that runs it to cancel it."""
    duration_ms: int = Field(default=0, sa_type=Int64)
    model: str | None = None
    prompt_tokens: int = Field(default=0, sa_type=Int64)
    completion_tokens: int = Field(default=0, sa_type=Int64)
    cost_micro_usd: int | None = Field(default=0, sa_type=Int64)
    fuel: int = Field(default=0, sa_type=Int64)
    memory_bytes: int = Field(default=0, sa_type=Int64)
    log: str = ""
    events: int = Field(default=0, sa_type=Int64, sa_column_kwargs={"server_default": "0"})
    """How many it showed, once it has ended."""


class InvocationContentRow(SQLModel, table=True):
    """The input and output of an invocation that has ended, encrypted."""

    __tablename__ = "invocation_content"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_invocation_content_age", "workspace_id", "kept_at", "size_bytes"),)

    invocation_id: str = Field(primary_key=True)
    workspace_id: str
    kept_at: datetime
    size_bytes: int = Field(sa_type=Int64)
    sealed: bytes


class InvocationEventsRow(SQLModel, table=True):
    """Successive events of an invocation, encrypted: those numbered from `first` to `last`."""

    __tablename__ = "invocation_events"  # pyright: ignore[reportAssignmentType]

    invocation_id: str = Field(primary_key=True)
    first: int = Field(sa_type=Int64, primary_key=True)
    last: int = Field(sa_type=Int64)
    sealed: bytes


class RetentionRow(SQLModel, table=True):
    """How long a workspace keeps inputs and outputs, if it has chosen."""

    __tablename__ = "invocation_retention"  # pyright: ignore[reportAssignmentType]

    workspace_id: str = Field(primary_key=True)
    days: int = Field(sa_type=Int64)
    """0: nothing of them is ever written down."""


class IdempotencyKeyRow(SQLModel, table=True):
    """A key under which a user asked for an invocation, so that the same request never begins a second one."""

    __tablename__ = "idempotency_key"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_idempotency_key_age", "claimed_at"),)

    workspace_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    request_hash: str
    invocation_id: str
    lease_id: str
    """The process that begins it."""
    claimed_at: datetime
