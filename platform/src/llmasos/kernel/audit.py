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
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sqlmodel import Session, col, select

from llmasos.db import WriteSession, utc_now
from llmasos.i18n import Words
from llmasos.kernel.invocation import Json
from llmasos.kernel.tables import AuditEntry, AuditHead
from llmasos.writer import Transaction


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
    reason_zh: str = ""


def append(transaction: Transaction, line: Line) -> int:
    """Add a line, in a transaction of the writer; its number."""
    count, previous = transaction.memo.get("audit head") or _head(transaction)
    seq = count + 1
    at = utc_now()
    detail = _canonical(dict(line.detail))
    who = (line.workspace, line.user, line.app, line.invocation)
    moment = at.isoformat(timespec="microseconds")
    hash_ = _hash(previous, [seq, moment, *who, line.event, line.outcome, detail])
    transaction.run(
        "INSERT INTO audit_entry (seq, at, workspace_id, user_id, app_id, invocation_id, event, outcome, detail,"
        " previous_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(seq, transaction.moment(at), *who),
        *(line.event, line.outcome, detail, previous, hash_),
    )
    transaction.run("UPDATE audit_head SET count = ?, hash = ? WHERE id = 1", seq, hash_)
    transaction.memo["audit head"] = (seq, hash_)
    return seq


def _head(transaction: Transaction) -> tuple[int, str]:
    """How many lines there are, and the hash of the last; nobody else adds one until the transaction ends."""
    query = f"SELECT count, hash FROM audit_head WHERE id = 1{transaction.for_update}"  # noqa: S608
    head = transaction.one(query)
    if head is None:
        transaction.run("INSERT INTO audit_head (id, count, hash) VALUES (1, 0, '') ON CONFLICT (id) DO NOTHING")
        head = transaction.one(query) or (0, "")
    return int(head[0]), str(head[1])


def record(session: WriteSession, line: Line) -> int:
    """Add a line, in a session's transaction; its number."""
    return append(Transaction.of(session), line)


def verify(session: Session) -> Verification:
    """Read the whole log and hold every line against its hash."""
    previous, count = "", 0
    head = session.get(AuditHead, 1)
    for row in session.exec(select(AuditEntry).order_by(col(AuditEntry.seq)).execution_options(yield_per=1000)):
        count += 1
        if row.seq != count:
            return Verification(count - 1, False, previous, count, *_line(count, "is missing", "缺失"))
        moment = row.at.isoformat(timespec="microseconds")
        who = (row.workspace_id, row.user_id, row.app_id, row.invocation_id)
        fields = [row.seq, moment, *who, row.event, row.outcome, _canonical(row.detail)]
        if row.previous_hash != previous:
            return Verification(
                count - 1, False, previous, count, *_line(count, f"does not follow line {count - 1}", "与上一行不衔接")
            )
        if row.hash != _hash(previous, fields):
            return Verification(count - 1, False, previous, count, *_line(count, "was changed", "被改动"))
        previous = row.hash
        session.expunge(row)
    if (head.count, head.hash) != (count, previous) if head else count > 0:
        missing = head.count - count if head else 0
        cut = f"{missing} lines were cut from its end", f"末尾被截去 {missing} 行"
        misfit = "its head does not fit its last line", "头部记录与最后一行不符"
        return Verification(count, False, previous, count + 1, *(cut if missing > 0 else misfit))
    return Verification(count, True, previous)


def _line(number: int, en: str, zh: str) -> Words:
    return f"line {number} {en}", f"第 {number} 行{zh}"


# Made once: `json.dumps` makes one at each call with such options.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _hash(previous: str, fields: list[str | int | None]) -> str:
    return hashlib.sha256(f"{previous}\n{_canonical(fields)}".encode()).hexdigest()
