"""Secrets, encrypted."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, SQLModel


class SecretRow(SQLModel, table=True):
    """One secret of one user, for one app or for the host. `ciphertext` is a Fernet token under a key elsewhere."""

    __tablename__ = "secret"  # pyright: ignore[reportAssignmentType]

    workspace_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    app_id: str = Field(primary_key=True)
    """The app whose requests carry it; empty: the host's own, such as the key of a model."""
    name: str = Field(primary_key=True)
    ciphertext: str
    updated_at: datetime
