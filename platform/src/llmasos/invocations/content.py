"""What an invocation was given and what it returned: kept encrypted, for as long as its workspace wants."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlmodel import Session, col, func, select

from llmasos.database.dialect import SqlValue
from llmasos.database.engine import WriteSession, utc_now
from llmasos.database.transaction import Transaction
from llmasos.errors import Conflict, Invalid, Unavailable
from llmasos.i18n import _
from llmasos.invocations.tables import InvocationContentRow, InvocationRow, RetentionRow
from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.kernel.invocation import Json, Principal
from llmasos.secrets import Sealer
from llmasos_runner.protocol import MAX_PAYLOAD_BYTES

DEFAULT_DAYS: Final = 30
MAX_DAYS: Final = 3650
# An input and an output as large as any action takes and returns, and what was shown besides.
MAX_CONTENT_BYTES: Final = 3 * MAX_PAYLOAD_BYTES
# Past it a workspace's oldest contents go before their time: some 700 of the largest, or millions of ordinary ones.
MAX_WORKSPACE_BYTES: Final = 2 << 30
EVENTS_KEPT: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class InvocationContent:
    """An input and an output, as JSON texts; None for what there is not."""

    input_json: str | None = None
    output_json: str | None = None
    shown: str = ""
    """What a run that did not succeed had shown by then: it was paid for."""

    @property
    def input(self) -> Json:
        """The input, decoded."""
        return None if self.input_json is None else json.loads(self.input_json)

    @property
    def output(self) -> Json:
        """The output, decoded."""
        return None if self.output_json is None else json.loads(self.output_json)

    def seal(self, sealer: Sealer, invocation_id: str) -> bytes | None:
        """Encrypt it; None if there is nothing. What is over the limit is left out, the input first.

        Raises:
            Unavailable: The home's key cannot be used.
        """
        parts: dict[str, str] = {}
        room = MAX_CONTENT_BYTES
        for name, text in (("output", self.output_json), ("shown", self.shown or None), ("input", self.input_json)):
            size = 0 if text is None else len(text.encode(errors="surrogatepass"))
            if text is not None and size <= room:
                parts[name] = text
                room -= size
        if not parts:
            return None
        encoded = json.dumps(parts, ensure_ascii=False).encode(errors="surrogatepass")
        return sealer.seal(encoded, _about(invocation_id))

    @classmethod
    def unseal(cls, sealer: Sealer, invocation_id: str, sealed: bytes) -> InvocationContent:
        """Decrypt it.

        Raises:
            KeyChanged: It was encrypted under another key.
        """
        parts: dict[str, str] = json.loads(sealer.unseal(sealed, _about(invocation_id)).decode(errors="surrogatepass"))
        return cls(parts.get("input"), parts.get("output"), parts.get("shown", ""))


def _about(invocation_id: str) -> str:
    return f"invocation {invocation_id}"


class Retention:
    """Which workspaces keep what, read once in a transaction. A buffer that writes nothing."""

    def __init__(self) -> None:
        self._days: dict[str, int] | None = None

    def keeps(self, transaction: Transaction, workspace: str) -> bool:
        """Whether a workspace keeps inputs and outputs."""
        if self._days is None:
            self._days = dict(transaction.all("SELECT workspace_id, days FROM invocation_retention"))
        return self._days.get(workspace, DEFAULT_DAYS) > 0

    def write(self, transaction: Transaction) -> None:
        """Nothing: it only remembers."""

    def discard(self) -> None:
        """Nothing was changed."""


class _Contents:
    """Contents of invocations that ended in a batch of writes. A buffer of `Transaction`."""

    def __init__(self) -> None:
        self.rows: list[tuple[SqlValue, ...]] = []

    def write(self, transaction: Transaction) -> None:
        """Write those of workspaces that keep them."""
        retention = transaction.buffer(Retention)
        rows = [row for row in self.rows if retention.keeps(transaction, str(row[1]))]
        if rows:
            transaction.run_many(
                "INSERT INTO invocation_content (invocation_id, workspace_id, kept_at, size_bytes, sealed)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT (invocation_id) DO NOTHING",
                rows,
            )

    def discard(self) -> None:
        """Nothing but the database was changed."""


def keep(transaction: Transaction, invocation_id: str, workspace: str, sealed: bytes) -> None:
    """Write a content down, if its workspace keeps it."""
    row = (invocation_id, workspace, transaction.instant(utc_now()), len(sealed), sealed)
    transaction.buffer(_Contents).rows.append(row)


def read(session: Session, sealer: Sealer, invocation_id: str) -> InvocationContent | None:
    """What is kept of an invocation; None if nothing is.

    Raises:
        KeyChanged: It was encrypted under another key.
    """
    row = session.get(InvocationContentRow, invocation_id)
    return None if row is None else InvocationContent.unseal(sealer, invocation_id, row.sealed)


def delete(session: WriteSession, row: InvocationRow, by: Principal) -> None:
    """Delete what an invocation was given, showed, returned and logged. That it ran, and what it used, stays.

    Raises:
        Conflict: It still runs.
    """
    if row.status == "running":
        raise Conflict(_("The invocation still runs: cancel it first, or wait for its end."))
    transaction = Transaction.of(session)
    for table in ("invocation_content", "invocation_events"):
        transaction.run(f"DELETE FROM {table} WHERE invocation_id = ?", row.id)  # noqa: S608 - one of two names
    # An error of an app's own may repeat its input.
    transaction.run("UPDATE invocation SET log = '', error_message = NULL WHERE id = ?", row.id)
    audit.record(session, Line(by.workspace, by.user, "invocation.delete", app=row.app_id, invocation=row.id))


def delete_of_user(session: WriteSession, user: str) -> None:
    """Delete what a user's invocations were given, showed, returned and logged, in every workspace."""
    transaction = Transaction.of(session)
    for table in ("invocation_content", "invocation_events"):
        transaction.run(
            f"DELETE FROM {table} WHERE invocation_id IN (SELECT id FROM invocation WHERE user_id = ?)",  # noqa: S608
            user,
        )
    transaction.run("UPDATE invocation SET log = '', error_message = NULL WHERE user_id = ?", user)
    transaction.run("DELETE FROM idempotency_key WHERE user_id = ?", user)


def retention_days(session: Session, workspace: str) -> int:
    """For how many days a workspace keeps inputs and outputs; 0: not at all."""
    row = session.get(RetentionRow, workspace)
    return DEFAULT_DAYS if row is None else row.days


def set_retention_days(session: WriteSession, by: Principal, days: int) -> None:
    """Choose how long the workspace keeps inputs and outputs. What is older goes at once.

    Args:
        session: The write.
        by: Whose workspace it is, and who chose.
        days: 0: write nothing of them down, and delete what there is.

    Raises:
        Invalid: It is negative, or more than ten years.
    """
    if not 0 <= days <= MAX_DAYS:
        raise Invalid(_("Inputs and outputs are kept for 0 to {max_days:,} days.", max_days=MAX_DAYS))
    row = session.get(RetentionRow, by.workspace) or RetentionRow(workspace_id=by.workspace, days=days)
    row.days = days
    session.add(row)
    audit.record(session, Line(by.workspace, by.user, "retention.set", detail={"days": days}))
    transaction = Transaction.of(session)
    _expire_of(transaction, by.workspace, days)
    if days == 0:
        transaction.run(
            "DELETE FROM invocation_events WHERE EXISTS (SELECT 1 FROM invocation i"
            " WHERE i.id = invocation_events.invocation_id AND i.workspace_id = ?)",
            by.workspace,
        )


def expire(transaction: Transaction) -> None:
    """Delete what was kept for long enough, and of a workspace that keeps too much the oldest."""
    days: dict[str, int] = dict(transaction.all("SELECT workspace_id, days FROM invocation_retention"))
    for (workspace,) in transaction.all("SELECT DISTINCT workspace_id FROM invocation_content"):
        _expire_of(transaction, workspace, days.get(workspace, DEFAULT_DAYS))
        _shorten(transaction, workspace)
    transaction.run(
        "DELETE FROM invocation_events WHERE EXISTS (SELECT 1 FROM invocation i"
        " WHERE i.id = invocation_events.invocation_id AND i.ended_at < ?)",
        transaction.instant(utc_now() - EVENTS_KEPT),
    )


def _expire_of(transaction: Transaction, workspace: str, days: int) -> None:
    before = utc_now() - timedelta(days=days) if days else utc_now() + timedelta(days=1)
    transaction.run(
        "DELETE FROM invocation_content WHERE workspace_id = ? AND kept_at < ?",
        *(workspace, transaction.instant(before)),
    )


def _shorten(transaction: Transaction, workspace: str) -> None:
    """Delete the oldest contents of a workspace that keeps more than it may."""
    found: Any = transaction.one("SELECT SUM(size_bytes) FROM invocation_content WHERE workspace_id = ?", workspace)
    if found is None or (found[0] or 0) <= MAX_WORKSPACE_BYTES:
        return
    transaction.run(
        "DELETE FROM invocation_content WHERE invocation_id IN (SELECT invocation_id FROM (SELECT invocation_id,"
        " SUM(size_bytes) OVER (ORDER BY kept_at DESC, invocation_id) AS total FROM invocation_content"
        " WHERE workspace_id = ?) AS newest WHERE total > ?)",
        *(workspace, MAX_WORKSPACE_BYTES),
    )


def count_unreadable(session: Session, sealer: Sealer) -> int:
    """How many contents there are, if the oldest or the newest of them cannot be decrypted; else 0."""
    at = col(InvocationContentRow.kept_at)
    for order in (at, at.desc()):
        row = session.exec(select(InvocationContentRow).order_by(order).limit(1)).first()
        try:
            if row is not None:
                InvocationContent.unseal(sealer, row.invocation_id, row.sealed)
        except Unavailable:
            return count(session)
    return 0


def count(session: Session) -> int:
    """How many contents are kept."""
    return session.exec(select(func.count(col(InvocationContentRow.invocation_id)))).one()
