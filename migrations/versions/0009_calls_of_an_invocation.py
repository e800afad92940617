"""The lines of the audit log about an invocation are found by it."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_audit_entry_invocation", "audit_entry", ["invocation_id"])


def downgrade() -> None:
    op.drop_index("ix_audit_entry_invocation", "audit_entry")
