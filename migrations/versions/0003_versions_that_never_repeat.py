"""A deleted key's version outlives it, so that a key that is written again gets a new one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stored_total", sa.Column("deleted_version", sa.Integer(), nullable=False, server_default="0"))
    # Earlier deletions are unknown, so every new version is above all existing ones.
    op.execute(
        "UPDATE stored_total SET deleted_version = COALESCE((SELECT MAX(v.version) FROM stored_value v"
        " WHERE v.workspace_id = stored_total.workspace_id AND v.app_id = stored_total.app_id"
        " AND v.user_id = stored_total.user_id), 0)"
    )


def downgrade() -> None:
    op.drop_column("stored_total", "deleted_version")
