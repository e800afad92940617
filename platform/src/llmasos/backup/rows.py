"""The rows of a database in a form that SQLite and PostgreSQL share.

The tables are read from the database itself and not from this code, so that a backup of an older schema is loaded into
that schema, and migrated afterwards. Values are JSON; instants are ISO 8601 in UTC, dates ISO 8601, and
a JSON column is its text, so that what the audit log hashed stays byte for byte the same; bytes are base64.
"""

from __future__ import annotations

import base64
import json
import typing
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any, BinaryIO, Final, TypeAlias

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    cast,
    func,
    insert,
    inspect,
    select,
    text,
    type_coerce,
)
from sqlalchemy.types import TypeDecorator

from llmasos.backup.archive import BackupRejected, TableRows
from llmasos.i18n import Message, _

# Alembic writes this table itself.
LEFT_OUT: Final = frozenset({"alembic_version"})
# Rows are read and written in batches of this many; a row has at most about 100 KiB of an app's log.
_BATCH: Final = 500
MAX_LINE_BYTES: Final = 64 << 20
_LARGEST_INTEGER: Final = 2**63 - 1

Value: TypeAlias = "str | int | float | bool | None"


class JsonText(TypeDecorator[str]):
    """A JSON column, read and written as its text."""

    impl = Text
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        """Make PostgreSQL parse the text; SQLite keeps it as text."""
        return cast(type_coerce(bindparam, Text), JSON().with_variant(Text(), "sqlite"))

    def column_expression(self, column: Any) -> Any:
        """Read the text unchanged."""
        return cast(column, Text)


def tables_of(connection: Connection) -> list[Table]:
    """The tables that a backup holds, each after the tables that it references."""
    metadata = MetaData()
    metadata.reflect(connection, resolve_fks=False)
    tables = [table for table in metadata.sorted_tables if table.name not in LEFT_OUT]
    for table in tables:
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type = JsonText()
    return tables


def dump(connection: Connection, table: Table, target: BinaryIO) -> TableRows:
    """Write a table's rows, and return their description."""
    writers = [_writer(column) for column in table.columns]
    count = 0
    streamed = connection.execution_options(stream_results=True, yield_per=_BATCH)
    order = list(table.primary_key.columns) or list(table.columns)
    for row in streamed.execute(select(table).order_by(*order)):
        values = [write(value) for write, value in zip(writers, row, strict=True)]
        target.write(json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        count += 1
    return TableRows(tuple(table.columns.keys()), count, _next_id(connection, table))


def _writer(column: Column[Any]) -> Callable[[Any], Value]:
    if isinstance(column.type, DateTime):
        return lambda value: None if value is None else _in_utc(value).isoformat()
    if isinstance(column.type, Date):
        return lambda value: None if value is None else value.isoformat()
    if isinstance(column.type, LargeBinary):
        return lambda value: None if value is None else base64.b64encode(value).decode()
    return lambda value: value


def _in_utc(value: datetime) -> datetime:
    # SQLite keeps no zone; this project writes UTC.
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def load(connection: Connection, table: Table, saved: TableRows, lines: Iterable[bytes]) -> None:
    """Write rows into an empty table.

    Raises:
        BackupRejected: They do not match the table.
    """
    if set(saved.columns) != set(table.columns.keys()):
        raise _unfit(table, _("its columns are others"))
    readers = [_reader(table.columns[name]) for name in saved.columns]
    rows = _parsed(table, saved.columns, readers, lines)
    count = 0
    while batch := list(islice(rows, _BATCH)):
        connection.execute(insert(table), batch)
        count += len(batch)
    if count != saved.rows:
        raise _unfit(table, _("rows are missing"))
    if saved.next_id is not None:
        _set_next_id(connection, table, saved.next_id)


def _parsed(
    table: Table, columns: tuple[str, ...], readers: list[Callable[[object], object]], lines: Iterable[bytes]
) -> Iterator[dict[str, object]]:
    for line in lines:
        try:
            values = _list_of(json.loads(line))
            if len(values) != len(columns):
                raise TypeError
            yield {name: read(value) for name, read, value in zip(columns, readers, values, strict=True)}
        except (ValueError, TypeError, RecursionError) as error:
            raise _unfit(table, _("a row is of another shape")) from error


def _reader(column: Column[Any]) -> Callable[[object], object]:
    read = _reader_of_type(column.type)

    def checked(value: object) -> object:
        if value is None:
            if not column.nullable:
                raise TypeError
            return None
        return read(value)

    return checked


def _reader_of_type(kind: object) -> Callable[[object], object]:
    if isinstance(kind, DateTime):
        return lambda value: datetime.fromisoformat(_of(str, value)).astimezone(UTC)
    if isinstance(kind, Date):
        return lambda value: date.fromisoformat(_of(str, value))
    if isinstance(kind, Boolean):
        return lambda value: _of(bool, value)
    if isinstance(kind, BigInteger | Integer):
        return _integer
    if isinstance(kind, LargeBinary):
        return lambda value: base64.b64decode(_of(str, value), validate=True)
    if isinstance(kind, String | JsonText):
        return _text
    raise TypeError(f"a backup knows no columns of {kind!r}")


def _list_of(value: object) -> list[object]:
    """Parse a JSON array."""
    if not isinstance(value, list):
        raise TypeError
    return typing.cast("list[object]", value)


def _of(kind: type[Any], value: object) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST_INTEGER:
        raise TypeError
    return value


def _text(value: object) -> str:
    # PostgreSQL stores no NUL; an older LLMasOS let SQLite store one that an app had printed.
    return str(_of(str, value)).replace("\0", "\N{REPLACEMENT CHARACTER}")


def _next_id(connection: Connection, table: Table) -> int | None:
    if connection.dialect.name == "sqlite":
        if not _numbers_rows(connection):
            return None
        query = text("SELECT seq FROM sqlite_sequence WHERE name = :table")
        last = connection.execute(query, {"table": table.name}).scalar()
        return None if last is None else int(last) + 1
    sequence = _sequence(connection, table)
    if sequence is None:
        return None
    last, called = connection.execute(text(f"SELECT last_value, is_called FROM {sequence}")).one()  # noqa: S608 (PostgreSQL's own name of it)
    return int(last) + 1 if called else None


def _set_next_id(connection: Connection, table: Table, next_id: int) -> None:
    if connection.dialect.name == "sqlite":
        if not _numbers_rows(connection):
            return
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :table"), {"table": table.name})
        row = {"table": table.name, "last": next_id - 1}
        connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :last)"), row)
    elif (sequence := _sequence(connection, table)) is not None:
        query = text("SELECT setval(CAST(:sequence AS regclass), :next_id, false)")
        connection.execute(query, {"sequence": sequence, "next_id": next_id})


def _numbers_rows(connection: Connection) -> bool:
    """Whether a SQLite database has a table whose ids are never reused."""
    return inspect(connection).has_table("sqlite_sequence")


def _sequence(connection: Connection, table: Table) -> str | None:
    """The sequence that numbers a table's rows on PostgreSQL."""
    keys = list(table.primary_key.columns)
    if len(keys) != 1 or not isinstance(keys[0].type, Integer):
        return None
    return connection.execute(select(func.pg_get_serial_sequence(table.name, keys[0].name))).scalar()


def _unfit(table: Table, why: Message) -> BackupRejected:
    return BackupRejected(
        _(
            "The backup's table {table} does not fit its schema ({why}). Nothing was changed.",
            table=table.name,
            why=why,
        ),
    )
