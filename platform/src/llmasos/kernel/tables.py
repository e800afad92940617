"""Invocations, and the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import DDL, JSON, Column, Index, event
from sqlalchemy.schema import ExecutableDDLElement
from sqlmodel import Field, SQLModel


def _ddl(statement: str, dialect: str) -> ExecutableDDLElement:
    ddl: ExecutableDDLElement = DDL(statement)  # type: ignore[no-untyped-call]
    return ddl.execute_if(dialect=dialect)


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
    """The process that runs it; where its lease ended, a running invocation is none."""
    cancel_requested: bool = False
    """Another process asks the one that runs it to cancel it."""
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


class AuditHead(SQLModel, table=True):
    """The end of the audit log: how many lines it has, and the hash of the last. One row.

    Writers of many processes take turns at it, and a log that was cut at its end no longer fits it.
    """

    __tablename__ = "audit_head"  # pyright: ignore[reportAssignmentType]

    id: int = Field(default=1, primary_key=True)
    count: int = 0
    hash: str = ""


# The log only grows. The statements stand here as DDL events, so that `create_all` makes them; a migration runs the
# same ones. They stop mistakes and ordinary tools; who owns the file can drop them, which is what the hashes are for.
APPEND_ONLY_SQLITE = tuple(
    f"CREATE TRIGGER IF NOT EXISTS audit_entry_no_{verb} BEFORE {verb.upper()} ON audit_entry "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    for verb in ("update", "delete")
)
APPEND_ONLY_POSTGRESQL = (
    "CREATE OR REPLACE FUNCTION audit_entry_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
    "CREATE OR REPLACE TRIGGER audit_entry_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_append_only()",
)
for _dialect, _statements in (("sqlite", APPEND_ONLY_SQLITE), ("postgresql", APPEND_ONLY_POSTGRESQL)):
    for _statement in _statements:
        event.listen(SQLModel.metadata.tables["audit_entry"], "after_create", _ddl(_statement, _dialect))
