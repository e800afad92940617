"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_token",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
    op.create_table(
        "audit_entry",
        sa.Column("seq", BIG, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("app_id", sa.String(), nullable=True),
        sa.Column("invocation_id", sa.String(), nullable=True),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("previous_hash", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "audit_head",
        sa.Column("id", BIG, nullable=False),
        sa.Column("count", BIG, nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "host_lease",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("pid", BIG, nullable=False),
        sa.Column("born", sa.String(), nullable=False),
        sa.Column("expires_at", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_host_lease_expires_at"), "host_lease", ["expires_at"], unique=False)
    op.create_table(
        "invocation",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("app_id", sa.String(), nullable=True),
        sa.Column("version", sa.String(), nullable=True),
        sa.Column("installation_id", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("parent_id", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_message", sa.String(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("duration_ms", BIG, nullable=False),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("prompt_tokens", BIG, nullable=False),
        sa.Column("completion_tokens", BIG, nullable=False),
        sa.Column("cost_micro_usd", BIG, nullable=True),
        sa.Column("fuel", BIG, nullable=False),
        sa.Column("memory_bytes", BIG, nullable=False),
        sa.Column("log", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_invocation_listing", "invocation", ["workspace_id", "started_at"], unique=False)
    op.create_index("ix_invocation_running", "invocation", ["status", "lease_id"], unique=False)
    op.create_table(
        "model",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("entry", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "publisher",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "quota",
        sa.Column("id", BIG, nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("scope_id", sa.String(), nullable=False),
        sa.Column("meter", sa.String(), nullable=False),
        sa.Column("window", sa.String(), nullable=False),
        sa.Column("limit", BIG, nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("workspace_id", "scope", "scope_id", "meter", "window", "source"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "secret",
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("ciphertext", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "user_id", "name"),
    )
    op.create_table(
        "stored_total",
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("app_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "app_id", "user_id"),
    )
    op.create_table(
        "stored_value",
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("app_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("base64", sa.Boolean(), nullable=False),
        sa.Column("version", BIG, nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "app_id", "user_id", "key"),
    )
    op.create_table(
        "usage_day",
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("app_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("calls", BIG, nullable=False),
        sa.Column("prompt_tokens", BIG, nullable=False),
        sa.Column("completion_tokens", BIG, nullable=False),
        sa.Column("cost_micro_usd", BIG, nullable=False),
        sa.Column("unpriced_calls", BIG, nullable=False),
        sa.Column("fuel", BIG, nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "user_id", "app_id", "model", "day"),
    )
    op.create_index("ix_usage_day_day", "usage_day", ["workspace_id", "day"], unique=False)
    op.create_table(
        "workspace",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "app",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("publisher_id", sa.String(), nullable=False),
        sa.Column("name_en", sa.String(), nullable=False),
        sa.Column("name_zh", sa.String(), nullable=False),
        sa.Column("summary_en", sa.String(), nullable=False),
        sa.Column("summary_zh", sa.String(), nullable=False),
        sa.Column("categories", sa.JSON(), nullable=False),
        sa.Column("latest_version", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["publisher_id"],
            ["publisher.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_app_publisher_id"), "app", ["publisher_id"], unique=False)
    op.create_table(
        "installation",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("app_id", sa.String(), nullable=False),
        sa.Column("current_id", BIG, nullable=True),
        sa.Column("installed_by", sa.String(), nullable=False),
        sa.Column("installed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspace.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("workspace_id", "app_id"),
    )
    op.create_index(op.f("ix_installation_workspace_id"), "installation", ["workspace_id"], unique=False)
    op.create_table(
        "ledger_window",
        sa.Column("id", BIG, nullable=False),
        sa.Column("quota_id", BIG, nullable=False),
        sa.Column("starts_at", BIG, nullable=False),
        sa.Column("limit", BIG, nullable=False),
        sa.Column("used", BIG, nullable=False),
        sa.Column("reserved", BIG, nullable=False),
        sa.Column("overrun", BIG, nullable=False),
        sa.CheckConstraint('used + reserved <= "limit"', name="ck_ledger_within_limit"),
        sa.CheckConstraint("used >= 0 AND reserved >= 0 AND overrun >= 0", name="ck_ledger_not_negative"),
        sa.ForeignKeyConstraint(["quota_id"], ["quota.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("quota_id", "starts_at"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_ledger_window_quota_id"), "ledger_window", ["quota_id"], unique=False)
    op.create_table(
        "installed_release",
        sa.Column("id", BIG, nullable=False),
        sa.Column("installation_id", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("component_digest", sa.String(), nullable=False),
        sa.Column("runtime", sa.String(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("actions", sa.JSON(), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("lock", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["installation_id"], ["installation.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        op.f("ix_installed_release_installation_id"), "installed_release", ["installation_id"], unique=False
    )
    op.create_index(op.f("ix_installed_release_state"), "installed_release", ["state"], unique=False)
    op.create_table(
        "release",
        sa.Column("id", BIG, nullable=False),
        sa.Column("app_id", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.Column("runtime", sa.String(), nullable=False),
        sa.Column("component_digest", sa.String(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("actions", sa.JSON(), nullable=False),
        sa.Column("imports", sa.JSON(), nullable=False),
        sa.Column("readme", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_reason", sa.String(), nullable=False),
        sa.Column("published_by", sa.String(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["app_id"],
            ["app.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("app_id", "version"),
    )
    op.create_index(op.f("ix_release_app_id"), "release", ["app_id"], unique=False)
    op.create_table(
        "reservation",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("window_id", BIG, nullable=False),
        sa.Column("meter", sa.String(), nullable=False),
        sa.Column("amount", BIG, nullable=False),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["window_id"], ["ledger_window.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", "window_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "grant",
        sa.Column("installed_release_id", BIG, nullable=False),
        sa.Column("capability", sa.String(), nullable=False),
        sa.Column("scope", sa.JSON(), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["installed_release_id"], ["installed_release.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("installed_release_id", "capability"),
    )
    op.create_table(
        "release_dependency",
        sa.Column("release_id", BIG, nullable=False),
        sa.Column("app_id", sa.String(), nullable=False),
        sa.Column("specifier", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("release_id", "app_id"),
    )
    op.create_table(
        "release_permission",
        sa.Column("release_id", BIG, nullable=False),
        sa.Column("capability", sa.String(), nullable=False),
        sa.Column("optional", sa.Boolean(), nullable=False),
        sa.Column("scope", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("release_id", "capability"),
    )

    if op.get_context().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER IF NOT EXISTS audit_entry_no_update BEFORE UPDATE ON audit_entry BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
    if op.get_context().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER IF NOT EXISTS audit_entry_no_delete BEFORE DELETE ON audit_entry BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "CREATE OR REPLACE FUNCTION audit_entry_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
        )
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "CREATE OR REPLACE TRIGGER audit_entry_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_append_only()"
        )


def downgrade() -> None:
    op.drop_table("release_permission")
    op.drop_table("release_dependency")
    op.drop_table("grant")
    op.drop_table("reservation")
    op.drop_index(op.f("ix_release_app_id"), table_name="release")
    op.drop_table("release")
    op.drop_index(op.f("ix_installed_release_state"), table_name="installed_release")
    op.drop_index(op.f("ix_installed_release_installation_id"), table_name="installed_release")
    op.drop_table("installed_release")
    op.drop_index(op.f("ix_ledger_window_quota_id"), table_name="ledger_window")
    op.drop_table("ledger_window")
    op.drop_index(op.f("ix_installation_workspace_id"), table_name="installation")
    op.drop_table("installation")
    op.drop_index(op.f("ix_app_publisher_id"), table_name="app")
    op.drop_table("app")
    op.drop_table("workspace")
    op.drop_index("ix_usage_day_day", table_name="usage_day")
    op.drop_table("usage_day")
    op.drop_table("stored_value")
    op.drop_table("stored_total")
    op.drop_table("secret")
    op.drop_table("quota")
    op.drop_table("publisher")
    op.drop_table("model")
    op.drop_index("ix_invocation_running", table_name="invocation")
    op.drop_index("ix_invocation_listing", table_name="invocation")
    op.drop_table("invocation")
    op.drop_index(op.f("ix_host_lease_expires_at"), table_name="host_lease")
    op.drop_table("host_lease")
    op.drop_table("audit_head")
    op.drop_table("audit_entry")
    op.drop_table("api_token")
