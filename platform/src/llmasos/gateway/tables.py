"""Models that an operator added by command; `config.toml` holds others."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel


class ModelRow(SQLModel, table=True):
    """One model, by the name that apps and quotas use."""

    __tablename__ = "model"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True)
    entry: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime
