"""The audit log: append-only, each line's hash covering the line and the hash before it.

`hash = SHA-256(previous hash, newline, line)`, where the line is a JSON array of its number, time, workspace, user,
app, invocation, event, outcome and detail (as JSON text with sorted keys), without spaces. A row that was changed no
longer has its hash; one that was taken out breaks the chain at the next; lines that were cut from the end leave the
head behind, which counts them and keeps the last hash.

What it cannot show: who may rewrite the whole file can also write a new chain and a new head. Keep the head's hash
somewhere else (`llmasos audit verify --json` prints it) to see that too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from json.encoder import encode_basestring_ascii
from types import MappingProxyType

from sqlmodel import Session, col, select

from llmasos.database.dialect import SqlValue
from llmasos.database.engine import WriteSession, utc_now
from llmasos.database.transaction import Transaction
from llmasos.i18n import Message, _
from llmasos.kernel.invocation import Json
from llmasos.kernel.tables import AuditEntry, AuditHead


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was done or refused. `detail` never holds contents or secrets."""

    workspace: str
    user: str
    event: str
    outcome: str = "ok"
    app: str | None = None
    invocation: str | None = None
    detail: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether the log is as it was written. `seq` is the first line that is not, or the one that is missing."""

    lines: int
    intact: bool
    head: str
    seq: int | None = None
    reason: str = ""


class _Lines:
    """The lines of a transaction. A buffer of `Transaction`: the chain is locked for as short as possible."""

    def __init__(self) -> None:
        self.lines: list[tuple[datetime, Line]] = []

    def write(self, transaction: Transaction) -> None:
        """Chain them to the last line, and move the head."""
        seq, previous = _head(transaction)
        rows: list[tuple[SqlValue, ...]] = []
        for at, line in self.lines:
            seq += 1
            who = (line.workspace, line.user, line.app, line.invocation)
            detail = _canonical(line.detail)
            hash_ = _hash(
                previous, seq, (at.isoformat(timespec="microseconds"), *who, line.event, line.outcome, detail)
            )
            rows.append((seq, transaction.instant(at), *who, line.event, line.outcome, detail, previous, hash_))
            previous = hash_
        transaction.run_many(
            "INSERT INTO audit_entry (seq, at, workspace_id, user_id, app_id, invocation_id, event, outcome, detail,"
            " previous_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        transaction.run("UPDATE audit_head SET count = ?, hash = ? WHERE id = 1", seq, previous)

    def discard(self) -> None:
        """Nothing but the database was changed."""


def append(transaction: Transaction, line: Line) -> None:
    """Add a line when the transaction ends."""
    transaction.buffer(_Lines).lines.append((utc_now(), line))


def _head(transaction: Transaction) -> tuple[int, str]:
    """How many lines there are, and the hash of the last; nobody else adds one until the transaction ends."""
    query = f"SELECT count, hash FROM audit_head WHERE id = 1{transaction.for_update}"  # noqa: S608
    head = transaction.one(query)
    if head is None:
        transaction.run("INSERT INTO audit_head (id, count, hash) VALUES (1, 0, '') ON CONFLICT (id) DO NOTHING")
        head = transaction.one(query) or (0, "")
    return int(head[0]), str(head[1])


def record(session: WriteSession, line: Line) -> None:
    """Add a line, in a session's transaction."""
    transaction = Transaction.of(session)
    append(transaction, line)
    transaction.flush()


def verify(session: Session) -> Verification:
    """Read the whole log and hold every line against its hash."""
    previous, count = "", 0
    head = session.get(AuditHead, 1)
    for row in session.exec(select(AuditEntry).order_by(col(AuditEntry.seq)).execution_options(yield_per=1000)):
        count += 1
        if row.seq != count:
            return Verification(count - 1, False, previous, count, _line(count, _("is missing from the log")))
        moment = row.at.isoformat(timespec="microseconds")
        who = (row.workspace_id, row.user_id, row.app_id, row.invocation_id)
        texts = (moment, *who, row.event, row.outcome, _canonical(row.detail))
        if row.previous_hash != previous:
            return Verification(
                count - 1, False, previous, count, _line(count, _("does not follow line {count}", count=count - 1))
            )
        if row.hash != _hash(previous, count, texts):
            return Verification(count - 1, False, previous, count, _line(count, _("was changed")))
        previous = row.hash
        session.expunge(row)
    if (head.count, head.hash) != (count, previous) if head else count > 0:
        missing = head.count - count if head else 0
        cut = _("{missing} lines were cut from its end", missing=missing)
        misfit = _("its head does not fit its last line")
        return Verification(count, False, previous, count + 1, cut if missing > 0 else misfit)
    return Verification(count, True, previous)


def _line(number: int, what: Message) -> Message:
    return _("line {number} {what}", number=number, what=what)


# Made once: `json.dumps` makes one at each call with such options.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _canonical(detail: Mapping[str, Json]) -> str:
    """As `_encode` writes it; what most lines hold, without the encoder, which takes several times as long."""
    fields: list[str] = []
    for key in sorted(detail):
        value = detail[key]
        if type(value) is str:
            text = encode_basestring_ascii(value)
        elif type(value) is int:
            text = str(value)
        else:
            text = _encode(value)
        fields.append(f"{encode_basestring_ascii(key)}:{text}")
    return f"{{{','.join(fields)}}}"


def _hash(previous: str, seq: int, texts: Iterable[str | None]) -> str:
    # The same as the encoder writes, which takes five times as long for it.
    fields = ",".join(["null" if text is None else encode_basestring_ascii(text) for text in texts])
    return hashlib.sha256(f"{previous}\n[{seq},{fields}]".encode()).hexdigest()
