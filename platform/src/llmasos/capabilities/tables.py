"""Values that apps store."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, SQLModel

from llmasos.database.columns import Int64


class StoredValue(SQLModel, table=True):
    """One value of one app, for one user of a workspace. Bytes are kept as base64, as in the call.

    Its `size_bytes` is that of the key and of the value, decoded.
    """

    __tablename__ = "stored_value"  # pyright: ignore[reportAssignmentType]

    workspace_id: str = Field(primary_key=True)
    app_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    value: str
    base64: bool = False
    version: int = Field(sa_type=Int64)
    size_bytes: int = Field(sa_type=Int64)
    updated_at: datetime


class StoredTotal(SQLModel, table=True):
    """What one app stores for one user: the size of its keys and values together, which the grant limits."""

    __tablename__ = "stored_total"  # pyright: ignore[reportAssignmentType]

    workspace_id: str = Field(primary_key=True)
    app_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    size_bytes: int = Field(sa_type=Int64)
    deleted_version: int = Field(default=0, sa_type=Int64, sa_column_kwargs={"server_default": "0"})
    """The highest version that a deleted key had: a key that is written anew begins above it."""
