"""The catalog in JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from llmasos.i18n import from_text
from llmasos_marketplace.catalog.tables import CatalogApp, Release


class LocalText(BaseModel):
    """A text in English and, if the author wrote one, in Chinese."""

    en: str
    zh: str | None = None


class AppSummary(BaseModel):
    """An app in a list."""

    id: str
    publisher: str
    name: LocalText
    summary: LocalText
    categories: list[str]
    latest_version: str
    updated_at: datetime


class ReleaseSummary(BaseModel):
    """A release in a list."""

    version: str
    state: Literal["available", "yanked", "quarantined"]
    state_reason: Annotated[str, BeforeValidator(lambda text: str(from_text(text)))] = ""
    digest: str = Field(description="SHA-256 of the bundle, hexadecimal.")
    size_bytes: int
    runtime: str = Field(description="wasm, python, or the kind of an operator's plugin, which begins with x-.")
    published_at: datetime


class AppDetail(AppSummary):
    """An app with its releases, newest first."""

    releases: list[ReleaseSummary]


class ReleaseDetail(ReleaseSummary):
    """A release in full: its manifest, its actions, and what its binary imports."""

    app: str
    manifest: dict[str, Any]
    actions: list[dict[str, Any]]
    imports: list[str]
    readme: str
    bundle: str = Field(description="The path of the bundle's bytes.")


class Category(BaseModel):
    """A category, with the number of its apps."""

    name: str
    apps: int


class PublisherDetail(BaseModel):
    """A publisher, with the number of its apps."""

    id: str
    created_at: datetime
    apps: int


def app_summary(row: CatalogApp) -> AppSummary:
    """Convert an app's row to JSON."""
    return AppSummary(
        id=row.id,
        publisher=row.publisher_id,
        name=LocalText.model_validate({"en": row.name_en, "zh": row.name_zh or None}),
        summary=LocalText.model_validate({"en": row.summary_en, "zh": row.summary_zh or None}),
        categories=row.categories,
        latest_version=row.latest_version,
        updated_at=row.updated_at,
    )


def release_summary(row: Release) -> ReleaseSummary:
    """Convert a release's row to JSON."""
    return ReleaseSummary.model_validate(row, from_attributes=True)


def release_detail(row: Release) -> ReleaseDetail:
    """Convert a release's row to JSON, with all details."""
    return ReleaseDetail(
        **release_summary(row).model_dump(),
        app=row.app_id,
        manifest=row.manifest,
        actions=row.actions,
        imports=row.imports,
        readme=row.readme,
        bundle=f"/catalog/v1/apps/{row.app_id}/releases/{row.version}/bundle",
    )
