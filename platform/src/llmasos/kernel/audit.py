"""The audit log: append-only, one chain of hashes for each workspace.

`hash = SHA-256(previous hash, newline, line)`, where the line is a JSON array of its number, time, workspace, user,
app, invocation, event, outcome and detail (as JSON text with sorted keys), without spaces. A row that was changed no
longer has its hash; one that was taken out breaks the chain at the next; lines that were cut from the end leave the
head behind, which counts them and keeps the last hash.

Older homes had one chain for all workspaces. It is sealed, under the head with the empty name, and every
workspace's chain continues from its last line.

The limit of this: a program that can rewrite the whole database can also write a new chain and a new head. Keep
the heads' hashes somewhere else (`llmasos audit verify --json` prints them) to see that too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from json.encoder import encode_basestring_ascii
from types import MappingProxyType

from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from llmasos.database.dialect import SqlValue
from llmasos.database.engine import WriteSession, utc_now
from llmasos.database.text import storable
from llmasos.database.transaction import Transaction
from llmasos.i18n import Message, _, ngettext
from llmasos.kernel.invocation import Json
from llmasos.kernel.tables import AuditEntry, AuditHead

# The log only grows, and guests choose names: names and the values of a detail are cut to this many characters.
MAX_EVENT, MAX_DETAIL = 120, 1000


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
    """Whether the log is unchanged.

    `lines` counts the intact lines. If any was changed, `seq` is the number of the first changed or missing one, and
    `workspace` whose it is; empty for the sealed chain.
    """

    lines: int
    intact: bool
    heads: Mapping[str, str]
    """The last hash of each workspace's chain."""
    workspace: str = ""
    seq: int | None = None
    reason: str = ""


class _Lines:
    """The lines of a transaction, as a `Buffer`, so that the chains are locked as briefly as possible."""

    def __init__(self) -> None:
        self.by_workspace: dict[str, list[tuple[datetime, Line]]] = {}

    def write(self, transaction: Transaction) -> None:
        """Chain them to the last lines and move the heads, in the order of workspaces to avoid deadlocks."""
        rows: list[tuple[SqlValue, ...]] = []
        heads: list[tuple[SqlValue, ...]] = []
        for workspace, lines in sorted(self.by_workspace.items()):
            seq, previous = _locked_head(transaction, workspace)
            for at, line in lines:
                seq += 1
                who = (line.workspace, line.user, line.app, line.invocation)
                detail = _canonical(line.detail)
                texts = (at.isoformat(timespec="microseconds"), *who, line.event, line.outcome, detail)
                hash_ = _hash(previous, seq, texts)
                rows.append((seq, transaction.instant(at), *who, line.event, line.outcome, detail, previous, hash_))
                previous = hash_
            heads.append((seq, previous, workspace))
        transaction.run_many(
            "INSERT INTO audit_entry (seq, at, workspace_id, user_id, app_id, invocation_id, event, outcome, detail,"
            " previous_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        transaction.run_many("UPDATE audit_head SET count = ?, hash = ? WHERE workspace_id = ?", heads)

    def discard(self) -> None:
        """Do nothing: only the database was changed."""


def append(transaction: Transaction, line: Line) -> None:
    """Add a line when the transaction ends; texts of guests in it are cut to a bound."""
    line = replace(
        line,
        event=storable(line.event, MAX_EVENT),
        user=storable(line.user),
        detail={key: _bounded(value) for key, value in line.detail.items()},
    )
    transaction.buffer(_Lines).by_workspace.setdefault(line.workspace, []).append((utc_now(), line))


def _bounded(value: Json) -> Json:
    """Cut a value of a line's detail to `MAX_DETAIL`, since the log only grows."""
    if isinstance(value, str):
        return value if len(value) <= MAX_DETAIL else storable(value, MAX_DETAIL)
    if isinstance(value, int | float | None):
        return value
    text = _encode(value)
    return value if len(text) <= MAX_DETAIL else storable(text, MAX_DETAIL)


def _locked_head(transaction: Transaction, workspace: str) -> tuple[int, str]:
    """The end of a workspace's chain, locked until the transaction ends."""
    query = f"SELECT count, hash FROM audit_head WHERE workspace_id = ?{transaction.for_update}"  # noqa: S608
    head = transaction.one(query, workspace)
    if head is None:
        transaction.run(
            "INSERT INTO audit_head (workspace_id, count, hash) SELECT ?, COALESCE(MAX(count), 0),"
            " COALESCE(MAX(hash), '') FROM audit_head WHERE workspace_id = '' ON CONFLICT (workspace_id) DO NOTHING",
            workspace,
        )
        head = transaction.one(query, workspace) or (0, "")
    return int(head[0]), str(head[1])


def record(session: WriteSession, line: Line) -> None:
    """Add a line, in a session's transaction."""
    transaction = Transaction.of(session)
    append(transaction, line)
    transaction.flush()


# The name of no workspace.
_SEALED = ""


def of_invocation(session: Session, workspace: str, invocation: str, limit: int) -> list[AuditEntry]:
    """The first lines about an invocation, in order."""
    own = select(AuditEntry).where(AuditEntry.workspace_id == workspace, AuditEntry.invocation_id == invocation)
    return list(session.exec(own.order_by(col(AuditEntry.seq)).limit(limit)))


def verify(session: Session, workspace: str | None = None) -> Verification:
    """Compare every line with its hash: of one workspace, or of all."""
    heads = {head.workspace_id: (head.count, head.hash) for head in session.exec(select(AuditHead))}
    sealed = heads.pop(_SEALED, (0, ""))
    later = col(AuditEntry.seq) > sealed[0]
    if workspace is None:
        others = session.exec(select(AuditEntry.workspace_id).where(later).distinct())
        workspaces = sorted({*heads, *others})
    else:
        workspaces = [workspace]
    in_order = select(AuditEntry).order_by(col(AuditEntry.seq))
    chains = [(_SEALED, in_order.where(~later), (0, ""), sealed)]
    for each in workspaces:
        own = in_order.where(AuditEntry.workspace_id == each, later)
        chains.append((each, own, sealed, heads.get(each, sealed)))
    total, ends = 0, dict[str, str]()
    for name, query, start, head in chains:
        lines, end, fault = _verify_chain(session, query, start, head)
        total += lines
        if name != _SEALED:
            ends[name] = end
        if fault is not None:
            return Verification(total, False, ends, name, *fault)
    return Verification(total, True, ends)


def _verify_chain(
    session: Session, query: SelectOfScalar[AuditEntry], start: tuple[int, str], head: tuple[int, str]
) -> tuple[int, str, tuple[int, Message] | None]:
    """Compare the lines of one chain with their hashes, from the end of the chain before to its own head.

    Returns:
        How many lines are as they were written, the last hash, and where and why the next one is not.
    """
    (count, previous), lines = start, 0
    with closing(session.exec(query.execution_options(yield_per=1000))) as rows:
        for row in rows:
            count += 1
            if row.seq != count:
                return lines, previous, (count, _line(count, _("is missing from the log")))
            who = (row.workspace_id, row.user_id, row.app_id, row.invocation_id)
            texts = (row.at.isoformat(timespec="microseconds"), *who, row.event, row.outcome, _canonical(row.detail))
            if row.previous_hash != previous:
                return lines, previous, (count, _line(count, _("does not follow line {count}", count=count - 1)))
            if row.hash != _hash(previous, count, texts):
                return lines, previous, (count, _line(count, _("was changed")))
            previous, lines = row.hash, lines + 1
            session.expunge(row)
    if head == (count, previous):
        return lines, previous, None
    missing = head[0] - count
    if missing > 0:
        return (
            lines,
            previous,
            (
                count + 1,
                ngettext("{count} line was cut from its end", "{count} lines were cut from its end", count=missing),
            ),
        )
    return lines, previous, (count + 1, _("its head does not fit its last line"))


def _line(number: int, what: Message) -> Message:
    return _("line {number} {what}", number=number, what=what)


# Made once: with these options `json.dumps` would make an encoder for each call.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _canonical(detail: Mapping[str, Json]) -> str:
    """Encode as `_encode` does; common values bypass the encoder, which takes several times as long."""
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
    # The same text as the encoder's, in a fifth of the time.
    fields = ",".join(["null" if text is None else encode_basestring_ascii(text) for text in texts])
    return hashlib.sha256(f"{previous}\n[{seq},{fields}]".encode()).hexdigest()
