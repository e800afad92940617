"""The catalog: publishers, apps, and their immutable releases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from llmasos.database.columns import Int64


class Publisher(SQLModel, table=True):
    """A publisher of apps: the first half of an app's id."""

    __tablename__ = "publisher"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    created_at: datetime


class CatalogApp(SQLModel, table=True):
    """An app, with the texts of its newest release, for search."""

    __tablename__ = "app"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_app_created", "created_at", "id"), Index("ix_app_updated", "updated_at"))

    id: str = Field(primary_key=True)
    publisher_id: str = Field(foreign_key="publisher.id", index=True)
    name_en: str
    name_zh: str = ""
    summary_en: str
    summary_zh: str = ""
    categories: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    latest_version: str
    created_at: datetime
    updated_at: datetime


class Release(SQLModel, table=True):
    """One immutable version of an app. `state` is available, yanked or quarantined."""

    __tablename__ = "release"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("app_id", "version"),)

    id: int | None = Field(default=None, sa_type=Int64, primary_key=True)
    app_id: str = Field(foreign_key="app.id", index=True)
    version: str
    digest: str
    """SHA-256 of the bundle, hexadecimal."""
    size_bytes: int = Field(sa_type=Int64)
    runtime: str
    component_digest: str
    manifest: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    actions: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    imports: list[str] = Field(sa_column=Column(JSON, nullable=False))
    """What the binary imports, by WIT name."""
    readme: str = ""
    state: str = "available"
    state_reason: str = ""
    published_by: str
    published_at: datetime


class ReleasePermission(SQLModel, table=True):
    """A permission of a release, one row each, so that releases can be found by capability."""

    __tablename__ = "release_permission"  # pyright: ignore[reportAssignmentType]

    release_id: int = Field(sa_type=Int64, primary_key=True, foreign_key="release.id", ondelete="CASCADE")
    capability: str = Field(primary_key=True)
    optional: bool
    scope: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class ReleaseDependency(SQLModel, table=True):
    """An app that a release depends on, and the versions that satisfy it."""

    __tablename__ = "release_dependency"  # pyright: ignore[reportAssignmentType]

    release_id: int = Field(sa_type=Int64, primary_key=True, foreign_key="release.id", ondelete="CASCADE")
    app_id: str = Field(primary_key=True)
    specifier: str
