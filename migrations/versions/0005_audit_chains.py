"""One hash chain of the audit log for each workspace, so that hosts do not queue at one row.

The former single chain is sealed: its lines and hashes stay unchanged, its head belongs to no workspace (the
empty name), and every workspace's chain continues from its last line.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from alembic import op

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

LINE = "seq, at, workspace_id, user_id, app_id, invocation_id, event, outcome, detail, previous_hash, hash"


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE audit_entry DROP CONSTRAINT audit_entry_pkey")
        op.execute("ALTER TABLE audit_entry ALTER COLUMN seq DROP DEFAULT")
        op.execute("DROP SEQUENCE IF EXISTS audit_entry_seq_seq")
        op.execute("ALTER TABLE audit_entry ADD CONSTRAINT audit_entry_pkey PRIMARY KEY (workspace_id, seq)")
        # 0003 made it an integer of 32 bits.
        op.execute("ALTER TABLE stored_total ALTER COLUMN deleted_version TYPE BIGINT")
    else:
        rebuild("workspace_id", "seq")
    op.execute("ALTER TABLE audit_head RENAME TO audit_head_before")
    op.create_table(
        "audit_head",
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("count", BIG, nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", name="audit_head_by_workspace"),
    )
    op.execute(
        "INSERT INTO audit_head (workspace_id, count, hash) SELECT '', count, hash FROM audit_head_before WHERE count > 0"
    )
    op.drop_table("audit_head_before")


def downgrade() -> None:
    connection = op.get_bind()
    postgresql = connection.dialect.name == "postgresql"
    heads = {name: (count, hash_) for name, count, hash_ in connection.execute(sa.text("SELECT * FROM audit_head"))}
    sealed, sealed_hash = heads.pop("", (0, ""))
    entries = connection.execute(ENTRY.select().where(ENTRY.c.seq > sealed).order_by(ENTRY.c.workspace_id, ENTRY.c.seq))
    lines = [dict(row._mapping) for row in entries]
    for workspace in {*heads, *(line["workspace_id"] for line in lines)}:
        end = sealed, sealed_hash
        for line in (it for it in lines if it["workspace_id"] == workspace):
            end = end[0] + 1, hash_of(line, end[0] + 1, end[1])
            if (line["seq"], line["hash"]) != end:
                break
        if end != heads.get(workspace):
            raise RuntimeError("the audit log is not intact: see llmasos audit verify; nothing was changed")
    # One chain again: the lines of all workspaces in order of time, with new hashes.
    lines.sort(key=lambda line: (line["at"], line["workspace_id"], line["seq"]))
    if postgresql:
        op.execute("ALTER TABLE audit_entry DISABLE TRIGGER audit_entry_no_change")
        connection.execute(ENTRY.delete().where(ENTRY.c.seq > sealed))
    else:
        rebuild("seq", append_only=False)
    seq, previous = sealed, sealed_hash
    for line in lines:
        seq += 1
        line.update(seq=seq, previous_hash=previous, hash=hash_of(line, seq, previous))
        previous = line["hash"]
        connection.execute(ENTRY.insert().values(line))
    if postgresql:
        op.execute("ALTER TABLE audit_entry ENABLE TRIGGER audit_entry_no_change")
        op.execute("ALTER TABLE audit_entry DROP CONSTRAINT audit_entry_pkey")
        op.execute("ALTER TABLE audit_entry ADD CONSTRAINT audit_entry_pkey PRIMARY KEY (seq)")
        op.execute("CREATE SEQUENCE audit_entry_seq_seq OWNED BY audit_entry.seq")
        op.execute("ALTER TABLE audit_entry ALTER COLUMN seq SET DEFAULT nextval('audit_entry_seq_seq')")
    else:
        forbid_changes()
    op.drop_table("audit_head")
    op.create_table(
        "audit_head",
        sa.Column("id", BIG, nullable=False),
        sa.Column("count", BIG, nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    head = sa.table("audit_head", sa.column("id"), sa.column("count"), sa.column("hash"))
    connection.execute(head.insert().values(id=1, count=seq, hash=previous))


def rebuild(*primary_key: str, append_only: bool = True) -> None:
    """Rebuild the table, since SQLite changes no primary key in place."""
    op.create_table(
        "audit_entry_after",
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
        sa.PrimaryKeyConstraint(*primary_key),
    )
    # A downgrade copies only the sealed lines: the others are renumbered.
    only = " WHERE seq <= (SELECT COALESCE(MAX(count), 0) FROM audit_head WHERE workspace_id = '')"
    copied = f"SELECT {LINE} FROM audit_entry{'' if append_only else only}"  # noqa: S608 - constants
    op.execute(f"INSERT INTO audit_entry_after ({LINE}) {copied}")
    op.drop_table("audit_entry")
    op.rename_table("audit_entry_after", "audit_entry")
    if append_only:
        forbid_changes()


def forbid_changes() -> None:
    for verb in ("update", "delete"):
        op.execute(
            f"CREATE TRIGGER IF NOT EXISTS audit_entry_no_{verb} BEFORE {verb.upper()} ON audit_entry "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )


ENTRY = sa.table(
    "audit_entry",
    sa.column("seq", sa.BigInteger()),
    sa.column("at", sa.DateTime(timezone=True)),
    *(sa.column(name, sa.String()) for name in ("workspace_id", "user_id", "app_id", "invocation_id")),
    *(sa.column(name, sa.String()) for name in ("event", "outcome", "previous_hash", "hash")),
    sa.column("detail", sa.JSON()),
)


def hash_of(line: dict[str, Any], seq: int, previous: str) -> str:
    """The hash of a line; `llmasos.kernel.audit` explains it."""

    def plain(value: object) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)

    at = line["at"]
    at = (at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)).isoformat(timespec="microseconds")
    whom = (line["workspace_id"], line["user_id"], line["app_id"], line["invocation_id"])
    text = plain([seq, at, *whom, line["event"], line["outcome"], plain(line["detail"])])
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()
