"""Values that an app stores, separately for each user of each workspace, within the bytes that the grant allows."""

# ruff: noqa: S608 - the statements are put together from constants of this module; values are always parameters

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, Protocol, TypeVar

from llmasos.bundles.manifest import StoragePermission
from llmasos.database.engine import Database, utc_now
from llmasos.database.transaction import Transaction
from llmasos.errors import Conflict, Denied, Invalid, QuotaExceeded
from llmasos.i18n import _
from llmasos.kernel.capability import ContractFunction, Operation, OperationResult, PreparedCall
from llmasos.kernel.guest_calls import json_text
from llmasos.kernel.invocation import Invocation
from llmasos.quotas.meters import Demand

MAX_KEY_BYTES: Final = 512
MAX_PAGE: Final = 1000
_WHERE: Final = "WHERE workspace_id = ? AND app_id = ? AND user_id = ?"
_OWNER: Final = "(workspace_id, app_id, user_id"
# Unicode's category Cc.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Value:
    """A value in a call: text, or bytes as base64."""

    text: str
    is_base64: bool
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A value with its version, as an app reads it."""

    value: str
    base64: bool
    version: int


@dataclass(frozen=True, slots=True)
class Get(Operation[StoredEntry | None]):
    """Reads a value; None if the key is absent."""

    key: str
    capability: ClassVar[str] = "storage"
    function: ClassVar[str] = "get"


@dataclass(frozen=True, slots=True)
class Put(Operation[int]):
    """Writes a value; returns its new version."""

    key: str
    value: str
    is_base64: bool = False
    capability: ClassVar[str] = "storage"
    function: ClassVar[str] = "put"


@dataclass(frozen=True, slots=True)
class CompareAndSet(Operation[int]):
    """Writes a value while its version is `expected`, or while the key is absent if that is None."""

    key: str
    expected: int | None
    value: str
    is_base64: bool = False
    capability: ClassVar[str] = "storage"
    function: ClassVar[str] = "compare-and-set"


@dataclass(frozen=True, slots=True)
class Delete(Operation[bool]):
    """Removes a value; returns whether it existed."""

    key: str
    capability: ClassVar[str] = "storage"
    function: ClassVar[str] = "delete"


@dataclass(frozen=True, slots=True)
class ListKeys(Operation[list[str]]):
    """Lists keys that start with `prefix` and sort after `after`, in order."""

    prefix: str
    after: str | None
    limit: int
    capability: ClassVar[str] = "storage"
    function: ClassVar[str] = "keys"


class CheckInstalled(Protocol):
    """Guards an app's write against the app's removal."""

    def __call__(self, transaction: Transaction, installation_id: str) -> None:
        """Raise `Denied` if the installation is gone; otherwise lock it against removal until the commit."""
        ...


class StorageCapability:
    """`storage`: get, put, compare-and-set, delete, keys."""

    name: str = "storage"
    audited: bool = False
    contract: Mapping[str, ContractFunction] = {
        "get": ContractFunction.plain(Get, tuple[str], lambda entry: entry and json_text(entry)),
        "put": ContractFunction.plain(Put, tuple[str, str, bool]),
        "compare-and-set": ContractFunction.plain(CompareAndSet, tuple[str, int | None, str, bool]),
        "delete": ContractFunction.plain(Delete, tuple[str]),
        "keys": ContractFunction.plain(ListKeys, tuple[str, str | None, int]),
    }

    def __init__(self, database: Database, check_installed: CheckInstalled | None = None) -> None:
        """Store values in `database`.

        Args:
            database: The one database.
            check_installed: Refuses, inside the write, an app that was uninstalled. Without it, every app that
                calls is considered installed.
        """
        self._database = database
        self._check_installed = check_installed

    def prepare(self, invocation: Invocation, operation: Operation[Any]) -> PreparedCall[Any]:
        """Prepare an access to the app's own area.

        Raises:
            Invalid: A key or value is not valid.
            Denied: The caller is not an app: only apps store values.
        """
        app = invocation.app
        grant = app.grants.get(self.name) if app else None
        if app is None or not isinstance(grant, StoragePermission):
            raise Denied(_("Only an app has storage; run this as an action of an app."))
        principal = invocation.principal
        area = Area(
            self._database,
            (principal.workspace, app.id, principal.user),
            grant.max_bytes,
            partial(self._check_installed, installation_id=app.installation_id) if self._check_installed else None,
        )
        match operation:
            case Get(key):
                check_key(key)
                return _read(lambda: area.get(key))
            case Put(key, text, is_base64):
                check_key(key)
                value = decoded(text, is_base64)
                return _write(lambda: area.put(key, value))
            case CompareAndSet(key, expected, text, is_base64):
                check_key(key)
                value = decoded(text, is_base64)
                return _write(lambda: area.compare_and_set(key, expected, value))
            case Delete(key):
                check_key(key)
                return _write(lambda: area.delete(key))
            case ListKeys(prefix, after, limit):
                if not 1 <= limit <= MAX_PAGE:
                    raise Invalid(
                        _("storage.keys takes a limit from 1 to {max_page}.", max_page=MAX_PAGE),
                    )
                _check_text(prefix)
                _check_text(after or "")
                return _read(lambda: area.keys(prefix, after, limit))
            case _:
                raise TypeError(operation)


def _read(work: Callable[[], T]) -> PreparedCall[T]:
    async def execute(_granted: Demand) -> OperationResult[T]:
        return OperationResult(work())

    return PreparedCall(execute)


def _write(work: Callable[[], Awaitable[T]]) -> PreparedCall[T]:
    async def execute(_granted: Demand) -> OperationResult[T]:
        return OperationResult(await work())

    return PreparedCall(execute)


@dataclass(frozen=True, slots=True)
class Area:
    """What one app stores for one user of one workspace."""

    database: Database
    owner: tuple[str, str, str]
    max_bytes: int
    check: Callable[[Transaction], None] | None = None
    """Fails a write, inside its transaction, if the app was uninstalled."""

    def get(self, key: str) -> StoredEntry | None:
        """Read a value and its version; None if the key is absent."""
        row = self.database.lookup(
            f"SELECT value, base64, version FROM stored_value {_WHERE} AND key = ?", *self.owner, key
        )
        return None if row is None else StoredEntry(row[0], bool(row[1]), row[2])

    async def put(self, key: str, value: Value) -> int:
        """Write a value, and return its new version."""
        return await self.database.write_queue.submit(lambda transaction: self._write(transaction, key, value))

    async def compare_and_set(self, key: str, expected: int | None, value: Value) -> int:
        """Write a value if the version is the expected one, and return the new version."""

        def write(transaction: Transaction) -> int:
            self._lock(transaction)
            there = self._there(transaction, key)
            if (there[0] if there else None) != expected:
                found = _("has version {version}", version=there[0]) if there else _("is absent")
                wanted = _("absence") if expected is None else _("version {version}", version=expected)
                raise Conflict(
                    _("The key {found}, {wanted} was expected; read it again and repeat.", found=found, wanted=wanted),
                )
            return self._write(transaction, key, value)

        return await self.database.write_queue.submit(write)

    async def delete(self, key: str) -> bool:
        """Remove a value, and return whether it existed."""

        def delete(transaction: Transaction) -> bool:
            deleted_version = self._lock(transaction)
            there = self._there(transaction, key)
            if there is None:
                return False
            version, size = there
            transaction.run(f"DELETE FROM stored_value {_WHERE} AND key = ?", *self.owner, key)
            transaction.run(
                f"UPDATE stored_total SET size_bytes = size_bytes - ?, deleted_version = ? {_WHERE}",
                *(size, max(version, deleted_version), *self.owner),
            )
            return True

        return await self.database.write_queue.submit(delete)

    def keys(self, prefix: str, after: str | None, limit: int) -> list[str]:
        """Keys that start with `prefix` and sort after `after`, in the order of their characters."""
        conditions, values = "AND key >= ?", [prefix]
        if (end := _past(prefix)) is not None:
            conditions, values = f"{conditions} AND key < ?", [*values, end]
        if after is not None:
            conditions, values = f"{conditions} AND key > ?", [*values, after]
        with self.database.read() as session:
            rows = Transaction(session.connection()).all(
                f"SELECT key FROM stored_value {_WHERE} {conditions} ORDER BY key LIMIT ?", *self.owner, *values, limit
            )
        return [row[0] for row in rows]

    def _lock(self, transaction: Transaction) -> int:
        """Lock the area against other writers of any process, and return the highest version of a deleted key."""
        if self.check is not None:
            self.check(transaction)
        transaction.run(
            f"INSERT INTO stored_total {_OWNER}, size_bytes, deleted_version) VALUES (?, ?, ?, 0, 0)"
            " ON CONFLICT (workspace_id, app_id, user_id) DO NOTHING",
            *self.owner,
        )
        row = transaction.one(f"SELECT deleted_version FROM stored_total {_WHERE}{transaction.for_update}", *self.owner)
        return int(row[0]) if row else 0

    def _there(self, transaction: Transaction, key: str) -> tuple[int, int] | None:
        """Read the version and size of a value."""
        row = transaction.one(f"SELECT version, size_bytes FROM stored_value {_WHERE} AND key = ?", *(*self.owner, key))
        return (row[0], row[1]) if row else None

    def _write(self, transaction: Transaction, key: str, value: Value) -> int:
        # Versions never repeat, even across a delete: a reader of the old value must not overwrite the new one.
        deleted_version = self._lock(transaction)
        version, before = self._there(transaction, key) or (deleted_version, 0)
        size = len(key.encode()) + value.size_bytes
        self._grow(transaction, size - before)
        transaction.run(
            f"INSERT INTO stored_value {_OWNER}, key, value, base64, version, size_bytes, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (workspace_id, app_id, user_id, key) DO UPDATE SET"
            " value = excluded.value, base64 = excluded.base64, version = excluded.version,"
            " size_bytes = excluded.size_bytes, updated_at = excluded.updated_at",
            *(*self.owner, key, value.text, value.is_base64, version + 1, size, transaction.instant(utc_now())),
        )
        return version + 1

    def _grow(self, transaction: Transaction, by: int) -> None:
        """Count bytes. A shrinking value is always allowed, even if a new grant is smaller than what is stored."""
        grown = transaction.run(
            f"UPDATE stored_total SET size_bytes = size_bytes + ? {_WHERE} AND (size_bytes + ? <= ? OR ? <= 0)",
            *(by, *self.owner, by, self.max_bytes, by),
        )
        if not grown:
            raise QuotaExceeded(
                _(
                    "The app may keep {max_bytes:,} bytes for you, keys counted; this needs {by:,} more than are "
                    "left. Delete something first; the app can ask for more with max_bytes in llmapp.toml.",
                    max_bytes=self.max_bytes,
                    by=by,
                ),
            )


def check_key(key: str) -> None:
    """Check a key against the rules.

    Raises:
        Invalid: It is empty or too long, or has control characters or lone surrogates.
    """
    _check_text(key)
    if not key or len(key.encode()) > MAX_KEY_BYTES:
        raise Invalid(
            _("A key has from 1 to {max_key_bytes} bytes in UTF-8.", max_key_bytes=MAX_KEY_BYTES),
        )
    if _CONTROLS.search(key):
        raise Invalid(_("A key has no control characters."))


def decoded(text: str, is_base64: bool) -> Value:
    """Decode a value, and return it with its size.

    Raises:
        Invalid: It is declared as base64 but is not, or is text that no database stores.
    """
    if is_base64:
        try:
            return Value(text, True, len(base64.b64decode(text, validate=True)))
        except (binascii.Error, ValueError):
            raise Invalid(_("The value is not base64.")) from None
    _check_text(text)
    return Value(text, False, len(text.encode()))


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid(
            _("The text has half a surrogate pair; store bytes as base64."),
        ) from None
    if "\0" in text:
        raise Invalid(_("A text has no NUL characters; store bytes as base64."))


def _past(prefix: str) -> str | None:
    """The first text after every text that starts with `prefix`; None if there is none."""
    # U+10FFFF is the last character: it cannot be incremented, so the character before it is.
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    last = ord(kept[-1]) + 1
    # Surrogates are not characters of a text.
    return kept[:-1] + chr(0xE000 if 0xD800 <= last <= 0xDFFF else last)
