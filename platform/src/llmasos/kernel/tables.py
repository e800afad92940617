"""The audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import DDL, JSON, Column, Index, event
from sqlalchemy.schema import ExecutableDDLElement
from sqlmodel import Field, SQLModel

from llmasos.database.columns import Int64


def _ddl(statement: str, dialect: str) -> ExecutableDDLElement:
    ddl: ExecutableDDLElement = DDL(statement)  # type: ignore[no-untyped-call]
    return ddl.execute_if(dialect=dialect)


class AuditEntry(SQLModel, table=True):
    """One line of the append-only log: `hash` covers the line and the hash before it in its workspace's chain."""

    __tablename__ = "audit_entry"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_audit_entry_invocation", "invocation_id"),)

    workspace_id: str = Field(primary_key=True)
    seq: int = Field(sa_type=Int64, primary_key=True)
    """Its number in the chain, from 1; lines of the sealed chain are numbered across workspaces."""
    at: datetime
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
    """The end of a workspace's chain: the number of its last line, and that line's hash.

    Processes take turns at it, and a truncated chain no longer matches it. The head with the empty name is
    that of the sealed chain, which all workspaces once shared and each workspace's chain continues.
    """

    __tablename__ = "audit_head"  # pyright: ignore[reportAssignmentType]

    workspace_id: str = Field(primary_key=True)
    count: int = Field(default=0, sa_type=Int64)
    hash: str = ""


# The log only grows. The statements are DDL events here, so that `create_all` runs them; a migration runs the
# same ones. They stop mistakes and ordinary tools; the file's owner can drop them, so the hashes detect that.
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
