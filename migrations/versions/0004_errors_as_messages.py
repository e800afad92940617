"""Why an invocation failed, as one message that is rendered in its reader's language."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from llmasos.i18n import from_text, render

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INVOCATION = sa.table(
    "invocation",
    sa.column("id", sa.String()),
    sa.column("error_message", sa.String()),
    sa.column("error_message_zh", sa.String()),
)


def upgrade() -> None:
    # A text that was stored in both languages becomes a message that is not translated again.
    build = "json_object" if op.get_context().dialect.name == "sqlite" else "json_build_object"
    texts = f"{build}('en', error_message, 'zh', error_message_zh)"
    parameters = f"{build}('text', {build}('texts', {texts}))"
    document = f"{build}('id', '{{text}}', 'parameters', {parameters})"
    op.execute(
        f"UPDATE invocation SET error_message = CAST({document} AS VARCHAR)"  # noqa: S608
        " WHERE error_message IS NOT NULL AND error_message_zh <> error_message"
    )
    op.drop_column("invocation", "error_message_zh")


def downgrade() -> None:
    op.add_column("invocation", sa.Column("error_message_zh", sa.String(), nullable=True))
    columns = _INVOCATION.c
    found = op.get_bind().execute(sa.select(columns.id, columns.error_message)).fetchall()
    for id_, message in ((id_, from_text(text)) for id_, text in found if text):
        texts = {"error_message": str(message), "error_message_zh": render(message, "zh")}
        op.get_bind().execute(sa.update(_INVOCATION).where(columns.id == id_).values(texts))
