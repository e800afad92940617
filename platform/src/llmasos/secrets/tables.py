"""Secrets, encrypted."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, SQLModel


class SecretRow(SQLModel, table=True):
    """One secret of one user. `ciphertext` is a Fernet token; the key is not in the database."""

    __tablename__ = "secret"  # pyright: ignore[reportAssignmentType]

    workspace_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    ciphertext: str
    updated_at: datetime
