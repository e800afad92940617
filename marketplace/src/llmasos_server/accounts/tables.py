"""People, their workspaces, and what they sign in with. Of every secret only a hash or a ciphertext is kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, UniqueConstraint
from sqlmodel import Field, SQLModel

from llmasos.database.columns import Int64


class ApiToken(SQLModel, table=True):
    """A token that a program sends. Shown once, stored as a SHA-256 hash."""

    __tablename__ = "api_token"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    name: str = ""
    hash: str = Field(unique=True)
    workspace_id: str
    user_id: str
    scopes: list[Any] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class User(SQLModel, table=True):
    """A person. `local` is whoever uses the command line on the host's own machine."""

    __tablename__ = "user_account"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    name: str
    email: str | None = Field(default=None, unique=True)
    """In the form that `people.normal_email` returns."""
    password_hash: str | None = None
    locale: str | None = None
    theme: str | None = None
    created_at: datetime
    disabled_at: datetime | None = None


class Member(SQLModel, table=True):
    """A user in a workspace."""

    __tablename__ = "member"  # pyright: ignore[reportAssignmentType]

    workspace_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True, foreign_key="user_account.id", index=True)
    role: str
    """A `people.Role`."""
    joined_at: datetime


class Invitation(SQLModel, table=True):
    """A link that lets its holder become a member."""

    __tablename__ = "invitation"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    hash: str
    workspace_id: str = Field(index=True)
    email: str
    role: str
    invited_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None
    revoked_at: datetime | None = None


class WebSession(SQLModel, table=True):
    """A browser that is signed in. Its cookie is stored as a SHA-256 hash."""

    __tablename__ = "web_session"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    hash: str
    user_id: str = Field(foreign_key="user_account.id", index=True)
    workspace_id: str
    device: str
    """What the browser says that it is, for its owner to know it again."""
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None


class OneTimeCode(SQLModel, table=True):
    """Something that is good once and for minutes: a sign-in link, a challenge, the wait for a second factor."""

    __tablename__ = "one_time_code"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    hash: str
    purpose: str
    """A `one_time.Purpose`."""
    user_id: str | None = None
    data: str = ""
    """What must be known again when it is used, such as the challenge of a passkey."""
    expires_at: datetime
    used_at: datetime | None = None


class Passkey(SQLModel, table=True):
    """A public key that a user signs in with."""

    __tablename__ = "passkey"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    """The credential's id, base64url."""
    user_id: str = Field(foreign_key="user_account.id", index=True)
    public_key: str
    """COSE, base64url."""
    sign_count: int = Field(sa_type=Int64)
    name: str
    created_at: datetime
    last_used_at: datetime | None = None


class Authenticator(SQLModel, table=True):
    """The app on a phone that shows a user's six digits. In force once it was confirmed by a code of its own."""

    __tablename__ = "authenticator"  # pyright: ignore[reportAssignmentType]

    user_id: str = Field(primary_key=True, foreign_key="user_account.id")
    ciphertext: str
    """Its secret, encrypted under the home's key."""
    confirmed_at: datetime | None = None
    last_step: int = Field(default=0, sa_type=Int64)
    """The 30 seconds, counted from the epoch, whose code was used last: no code is good twice."""


class RecoveryCode(SQLModel, table=True):
    """A code that stands in once for a lost second factor."""

    __tablename__ = "recovery_code"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("user_id", "hash"),)

    id: int | None = Field(default=None, sa_type=Int64, primary_key=True)
    user_id: str = Field(foreign_key="user_account.id")
    hash: str
    used_at: datetime | None = None


class ExternalIdentity(SQLModel, table=True):
    """Who a user is at a company's provider of identities (OpenID Connect)."""

    __tablename__ = "external_identity"  # pyright: ignore[reportAssignmentType]

    issuer: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="user_account.id", index=True)
    created_at: datetime
