"""Invocations."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from llmasos.database.columns import Int64


class InvocationRow(SQLModel, table=True):
    """One run of one action. Its input and output are not kept."""

    __tablename__ = "invocation"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_invocation_listing", "workspace_id", "started_at"),
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
