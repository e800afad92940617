"""A user's own invocations are listed by an index, however many the workspace has."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_invocation_own", "invocation", ["workspace_id", "user_id", "started_at"])


def downgrade() -> None:
    op.drop_index("ix_invocation_own", "invocation")
