"""Workspaces, their installations, and what was consented to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, UniqueConstraint
from sqlmodel import Field, SQLModel

from llmasos.database.columns import Int64


class Workspace(SQLModel, table=True):
    """A tenant."""

    __tablename__ = "workspace"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    name: str
    created_at: datetime


class Installation(SQLModel, table=True):
    """An app in a workspace. `current_id` is its current release."""

    __tablename__ = "installation"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("workspace_id", "app_id"),)

    id: str = Field(primary_key=True)
    workspace_id: str = Field(foreign_key="workspace.id", index=True)
    app_id: str
    current_id: int | None = Field(default=None, sa_type=Int64)
    installed_by: str
    installed_at: datetime


class InstalledRelease(SQLModel, table=True):
    """A release that is, was or may become the current one of an installation.

    `state` is pending (waits for consent), current, or previous (what a rollback returns to).
    """

    __tablename__ = "installed_release"  # pyright: ignore[reportAssignmentType]

    id: int | None = Field(default=None, sa_type=Int64, primary_key=True)
    installation_id: str = Field(foreign_key="installation.id", index=True, ondelete="CASCADE")
    version: str
    digest: str
    """SHA-256 of the bundle, hexadecimal."""
    component_digest: str
    """SHA-256 of the component or wheel, hexadecimal."""
    runtime: str
    manifest: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    actions: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    limits: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    config: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    lock: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """Dependencies: {app: {"version", "digest"}}."""
    state: str = Field(index=True)
    created_at: datetime


class GrantRow(SQLModel, table=True):
    """What the installer consented to for one capability of one installed release."""

    __tablename__ = "grant"  # pyright: ignore[reportAssignmentType]

    installed_release_id: int = Field(
        sa_type=Int64, primary_key=True, foreign_key="installed_release.id", ondelete="CASCADE"
    )
    capability: str = Field(primary_key=True)
    scope: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """The permission as granted, never wider than the one in the manifest."""
    revoked_at: datetime | None = None


class WorkspacePolicy(SQLModel, table=True):
    """The policy of a workspace; one without a row has the defaults."""

    __tablename__ = "workspace_policy"  # pyright: ignore[reportAssignmentType]

    workspace_id: str = Field(primary_key=True)
    policy: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class InstallRequest(SQLModel, table=True):
    """An install or an upgrade that waits for an administrator's approval."""

    __tablename__ = "install_request"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    workspace_id: str = Field(foreign_key="workspace.id", index=True)
    user_id: str
    app_id: str
    version: str
    upgrade: bool
    plan_digest: str
    """What the user agreed to; see `InstallPlan.digest`."""
    declined: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    config: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    reason: str
    """Why it must be approved, as a message."""
    requested_at: datetime
