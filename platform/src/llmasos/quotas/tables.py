"""Quotas, and the ledger of what was reserved and used."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import CheckConstraint, Index, UniqueConstraint
from sqlmodel import Field, SQLModel


class Quota(SQLModel, table=True):
    """A limit on a meter over a window, at a scope. `source` is operator, or the installation that brought it."""

    __tablename__ = "quota"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("workspace_id", "scope", "scope_id", "meter", "window", "source"),)

    id: int | None = Field(default=None, primary_key=True)
    workspace_id: str
    scope: str
    scope_id: str
    meter: str
    window: str
    limit: int
    source: str = "operator"
    created_at: datetime


class LedgerWindow(SQLModel, table=True):
    """One quota in one window of time: what is used and reserved of its limit.

    `overrun` is what a provider returned beyond what was reserved; while it is above zero, the next call is refused.
    """

    __tablename__ = "ledger_window"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        UniqueConstraint("quota_id", "starts_at"),
        CheckConstraint('used + reserved <= "limit"', name="ck_ledger_within_limit"),
        CheckConstraint("used >= 0 AND reserved >= 0 AND overrun >= 0", name="ck_ledger_not_negative"),
    )

    id: int | None = Field(default=None, primary_key=True)
    quota_id: int = Field(foreign_key="quota.id", index=True, ondelete="CASCADE")
    starts_at: int
    """Seconds since the epoch, UTC."""
    limit: int
    used: int = 0
    reserved: int = 0
    overrun: int = 0


class Reservation(SQLModel, table=True):
    """An amount held in one window before a call, until it is settled or its lease ends."""

    __tablename__ = "reservation"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    window_id: int = Field(primary_key=True, foreign_key="ledger_window.id", ondelete="CASCADE")
    meter: str
    amount: int
    expires_at: int = Field(index=True)


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
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_micro_usd: int = 0
    unpriced_calls: int = 0
    fuel: int = 0
