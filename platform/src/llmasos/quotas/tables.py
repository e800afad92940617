"""Quotas, and the ledger of what was reserved and used."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import CheckConstraint, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from llmasos.database.columns import Int64


class Quota(SQLModel, table=True):
    """A limit on a meter over a window, at a scope. `source` is operator, or the installation that brought it."""

    __tablename__ = "quota"  # pyright: ignore[reportAssignmentType]
    # Ids are never reused: a running call may still refer to the window of a removed quota.
    __table_args__ = (
        UniqueConstraint("workspace_id", "scope", "scope_id", "meter", "window", "source"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_type=Int64, primary_key=True)
    workspace_id: str
    scope: str
    scope_id: str
    meter: str
    window: str
    limit: int = Field(sa_type=Int64)
    source: str = "operator"
    created_at: datetime


class LedgerWindow(SQLModel, table=True):
    """One quota in one window of time: what is used and reserved of its limit.

    `overrun` is what a provider returned beyond what was reserved. It counts against the limit like `used`, but in a
    column of its own, since it may go past it: then every call is refused until the window ends. `limit` is what the
    quota said when it was last set, or what was already spent if that is more.
    """

    __tablename__ = "ledger_window"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        UniqueConstraint("quota_id", "starts_at"),
        CheckConstraint('used + reserved <= "limit"', name="ck_ledger_within_limit"),
        CheckConstraint("used >= 0 AND reserved >= 0 AND overrun >= 0", name="ck_ledger_not_negative"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_type=Int64, primary_key=True)
    quota_id: int = Field(sa_type=Int64, foreign_key="quota.id", index=True, ondelete="CASCADE")
    starts_at: int = Field(sa_type=Int64)
    """Seconds since the epoch, UTC."""
    limit: int = Field(sa_type=Int64)
    used: int = Field(default=0, sa_type=Int64)
    reserved: int = Field(default=0, sa_type=Int64)
    overrun: int = Field(default=0, sa_type=Int64)


class ReservationRow(SQLModel, table=True):
    """An amount reserved in one window before a call, until it is settled or the lease of its process ends."""

    __tablename__ = "reservation"  # pyright: ignore[reportAssignmentType]
    # Rows live for one call, so one B-tree to change is cheaper than a table and an index.
    __table_args__ = ({"sqlite_with_rowid": False},)

    id: str = Field(primary_key=True)
    window_id: int = Field(sa_type=Int64, primary_key=True, foreign_key="ledger_window.id", ondelete="CASCADE")
    meter: str
    amount: int = Field(sa_type=Int64)
    lease_id: str
    """The process that holds it. Not indexed: a sweep is rare, and reservations are few and short."""


class UsageDay(SQLModel, table=True):
    """Totals of a day, kept whether or not a quota is set."""

    __tablename__ = "usage_day"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_usage_day_day", "workspace_id", "day"),)

    workspace_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    app_id: str = Field(primary_key=True)
    """Empty for calls that no app made."""
    model: str = Field(primary_key=True)
    """Empty for what no model was called for."""
    day: date = Field(primary_key=True)
    calls: int = Field(default=0, sa_type=Int64)
    prompt_tokens: int = Field(default=0, sa_type=Int64)
    completion_tokens: int = Field(default=0, sa_type=Int64)
    cost_micro_usd: int = Field(default=0, sa_type=Int64)
    unpriced_calls: int = Field(default=0, sa_type=Int64)
    fuel: int = Field(default=0, sa_type=Int64)
