"""Invocations, and the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Index
from sqlmodel import Field, SQLModel


class InvocationRow(SQLModel, table=True):
    """One run of one action. Its input and output are not kept."""

    __tablename__ = "invocation"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_invocation_listing", "workspace_id", "started_at"),)

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
    started_at: datetime
    ended_at: datetime | None = None
    lease_expires_at: int = Field(index=True)
    """Past this, a running invocation's process is dead."""
    duration_ms: int = 0
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_micro_usd: int | None = 0
    fuel: int = 0
    memory_bytes: int = 0
    log: str = ""


class AuditEntry(SQLModel, table=True):
    """One line of the append-only log: `hash` covers the line and the hash before it."""

    __tablename__ = "audit_entry"  # pyright: ignore[reportAssignmentType]

    seq: int | None = Field(default=None, primary_key=True)
    at: datetime
    workspace_id: str
    user_id: str
    app_id: str | None = None
    invocation_id: str | None = None
    event: str
    """What was done: `model.generate`, `storage.put`, `install`, `quota.set`, …"""
    outcome: str
    """ok, or the code of the error."""
    detail: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    previous_hash: str
    hash: str
