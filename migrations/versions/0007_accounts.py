"""Users, members, and what they sign in with. The machine's own user becomes an owner of the default workspace.

Tokens act with the role of their user from now on, so every user of a token becomes a member of its workspace: as an
administrator if a token of that user has the scope `admin`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def text(name: str, *, nullable: bool = False, primary: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=nullable, primary_key=primary)


def time(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def user_id(*, primary: bool = False) -> sa.Column[str]:
    return sa.Column("user_id", sa.String(), sa.ForeignKey("user_account.id"), nullable=False, primary_key=primary)


def upgrade() -> None:
    op.create_table(
        "user_account",
        text("id", primary=True),
        text("name"),
        sa.Column("email", sa.String(), nullable=True, unique=True),
        text("password_hash", nullable=True),
        text("locale", nullable=True),
        text("theme", nullable=True),
        time("created_at"),
        time("disabled_at", nullable=True),
    )
    op.create_table(
        "member", text("workspace_id", primary=True), user_id(primary=True), text("role"), time("joined_at")
    )
    op.create_index("ix_member_user_id", "member", ["user_id"])
    op.create_table(
        "invitation",
        text("id", primary=True),
        text("hash"),
        text("workspace_id"),
        text("email"),
        text("role"),
        text("invited_by"),
        time("created_at"),
        time("expires_at"),
        time("used_at", nullable=True),
        time("revoked_at", nullable=True),
    )
    op.create_index("ix_invitation_workspace_id", "invitation", ["workspace_id"])
    op.create_table(
        "web_session",
        text("id", primary=True),
        text("hash"),
        user_id(),
        text("workspace_id"),
        text("device"),
        time("created_at"),
        time("seen_at"),
        time("expires_at"),
        time("ended_at", nullable=True),
    )
    op.create_index("ix_web_session_user_id", "web_session", ["user_id"])
    op.create_table(
        "one_time_code",
        text("id", primary=True),
        text("hash"),
        text("purpose"),
        text("user_id", nullable=True),
        text("data"),
        time("expires_at"),
        time("used_at", nullable=True),
    )
    op.create_table(
        "passkey",
        text("id", primary=True),
        user_id(),
        text("public_key"),
        sa.Column("sign_count", BIG, nullable=False),
        text("name"),
        time("created_at"),
        time("last_used_at", nullable=True),
    )
    op.create_index("ix_passkey_user_id", "passkey", ["user_id"])
    op.create_table(
        "authenticator",
        user_id(primary=True),
        text("ciphertext"),
        time("confirmed_at", nullable=True),
        sa.Column("last_step", BIG, nullable=False),
    )
    op.create_table(
        "recovery_code",
        sa.Column("id", BIG, primary_key=True),
        user_id(),
        text("hash"),
        time("used_at", nullable=True),
        sa.UniqueConstraint("user_id", "hash"),
    )
    op.create_table(
        "external_identity",
        text("issuer", primary=True),
        text("subject", primary=True),
        user_id(),
        time("created_at"),
    )
    op.create_index("ix_external_identity_user_id", "external_identity", ["user_id"])
    if not op.get_context().as_sql:
        add_members(op.get_bind())


def add_members(connection: sa.Connection) -> None:
    """The machine's own user, and the users of tokens."""
    roles: dict[tuple[str, str], str] = {}
    for workspace, user, scopes in connection.execute(sa.text("SELECT workspace_id, user_id, scopes FROM api_token")):
        decoded = json.loads(scopes) if isinstance(scopes, str) else scopes
        key = (str(workspace), str(user))
        roles[key] = "admin" if "admin" in decoded or roles.get(key) == "admin" else "member"
    roles["default", "local"] = "owner"
    now = datetime.now(UTC)
    users = sa.table("user_account", sa.column("id"), sa.column("name"), sa.column("created_at", sa.DateTime()))
    names = {user for _workspace, user in roles}
    rows = [{"id": name, "name": "Local" if name == "local" else name, "created_at": now} for name in sorted(names)]
    connection.execute(users.insert(), rows)
    member = sa.table(
        "member",
        *map(sa.column, ("workspace_id", "user_id", "role")),
        sa.column("joined_at", sa.DateTime()),
    )
    connection.execute(
        member.insert(),
        [
            {"workspace_id": workspace, "user_id": user, "role": role, "joined_at": now}
            for (workspace, user), role in sorted(roles.items())
        ],
    )


def downgrade() -> None:
    for table in (
        "external_identity",
        "recovery_code",
        "authenticator",
        "passkey",
        "one_time_code",
        "web_session",
        "invitation",
        "member",
        "user_account",
    ):
        op.drop_table(table)
