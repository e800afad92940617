"""The newest apps, and the last change of the catalog, are found by an index."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_app_created", "app", ["created_at", "id"])
    op.create_index("ix_app_updated", "app", ["updated_at"])


def downgrade() -> None:
    op.drop_index("ix_app_updated", "app")
    op.drop_index("ix_app_created", "app")
