"""A secret belongs to the host, or to one app: no app can name a key of the operator.

Older secrets belong to the host. An app that was granted one gets a copy, unless a model uses it as its key.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = "workspace_id, user_id, app_id, name, ciphertext, updated_at"


def create(name: str, *more: sa.Column[str], key: str | None = None) -> None:
    op.create_table(
        name,
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        *more,
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("ciphertext", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "user_id", *(column.name for column in more), "name", name=key),
    )


def upgrade() -> None:
    op.execute("ALTER TABLE secret RENAME TO secret_before")
    # PostgreSQL keeps the key names of a renamed table, so each form of the table has its own names.
    create("secret", sa.Column("app_id", sa.String(), nullable=False), key="secret_key")
    op.execute(
        f"INSERT INTO secret ({COLUMNS}) SELECT workspace_id, user_id, '', name, ciphertext, updated_at"  # noqa: S608
        " FROM secret_before"
    )
    op.drop_table("secret_before")
    if not op.get_context().as_sql:
        copy_to_apps(op.get_bind())


def copy_to_apps(connection: sa.Connection) -> None:
    """Give each app a copy of the secrets that it was granted."""
    keys = {_json(entry).get("key") for (entry,) in connection.execute(sa.text("SELECT entry FROM model"))}
    granted = connection.execute(
        sa.text(
            "SELECT i.workspace_id, i.app_id, g.scope FROM installation i JOIN installed_release r"
            ' ON r.installation_id = i.id JOIN "grant" g ON g.installed_release_id = r.id'
            " WHERE g.capability = 'secrets' AND g.revoked_at IS NULL"
        )
    ).all()
    wanted = {
        (workspace, app, str(place["name"]))
        for workspace, app, scope in granted
        for place in _json(scope).get("secrets", ())
        if f"secret:{place['name']}" not in keys
    }
    for workspace, app, name in sorted(wanted):
        connection.execute(
            sa.text(
                f"INSERT INTO secret ({COLUMNS}) SELECT workspace_id, user_id, :app, name, ciphertext, updated_at"  # noqa: S608
                " FROM secret WHERE workspace_id = :workspace AND app_id = '' AND name = :name"
            ),
            {"app": app, "workspace": workspace, "name": name},
        )


def downgrade() -> None:
    op.execute("ALTER TABLE secret RENAME TO secret_after")
    create("secret")
    kept = COLUMNS.replace("app_id, ", "")
    # If several share a name, the host's own stays, else one app's.
    op.execute(
        f"INSERT INTO secret ({kept}) SELECT {kept} FROM secret_after s WHERE app_id = (SELECT MIN(app_id)"  # noqa: S608
        " FROM secret_after o WHERE o.workspace_id = s.workspace_id AND o.user_id = s.user_id AND o.name = s.name)"
    )
    op.drop_table("secret_after")


def _json(value: object) -> dict[str, object]:
    """Decode a JSON column of either database."""
    decoded = json.loads(value) if isinstance(value, str) else value
    return decoded if isinstance(decoded, dict) else {}
