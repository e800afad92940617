"""Input and output of an invocation are kept, encrypted, and so are its events for a day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("invocation", sa.Column("events", BIG, nullable=False, server_default="0"))
    op.create_table(
        "invocation_content",
        sa.Column("invocation_id", sa.String(), nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("kept_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("invocation_id"),
    )
    op.create_index("ix_invocation_content_age", "invocation_content", ["workspace_id", "kept_at", "size_bytes"])
    op.create_table(
        "invocation_events",
        sa.Column("invocation_id", sa.String(), nullable=False),
        sa.Column("first", BIG, nullable=False),
        sa.Column("last", BIG, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("invocation_id", "first"),
    )
    op.create_table(
        "invocation_retention",
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("days", BIG, nullable=False),
        sa.PrimaryKeyConstraint("workspace_id"),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request_hash", sa.String(), nullable=False),
        sa.Column("invocation_id", sa.String(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "user_id", "key"),
    )
    op.create_index("ix_idempotency_key_age", "idempotency_key", ["claimed_at"])


def downgrade() -> None:
    for table in ("idempotency_key", "invocation_retention", "invocation_events", "invocation_content"):
        op.drop_table(table)
    op.drop_column("invocation", "events")
