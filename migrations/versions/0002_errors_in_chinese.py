"""Why an invocation failed, in Chinese too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("invocation", sa.Column("error_message_zh", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("invocation", "error_message_zh")
