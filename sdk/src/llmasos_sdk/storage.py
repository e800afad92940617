"""`ctx.storage`: values stored for the app, separately for each user."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any, cast

from llmasos_sdk.encoding import encode
from llmasos_sdk.errors import Conflict
from llmasos_sdk.host import Host
from llmasos_sdk.results import Document, Entry, bytes_from

PAGE = 200
# Two runs may occasionally write the same key at once; eight lost rounds in a row mean that something else is wrong.
ATTEMPTS = 8

Value = str | bytes


def carried(value: Value) -> tuple[str, bool]:
    """A value in the contract's form: text unchanged, bytes as base64."""
    return (value, False) if isinstance(value, str) else (base64.b64encode(value).decode(), True)


class StorageClient:
    """`ctx.storage`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def entry(self, key: str) -> Entry | None:
        """The value and its version, or None if there is none."""
        answer = self._host.call("storage", "get", key)
        if answer is None:
            return None
        document = cast("Document", json.loads(str(answer)))
        return Entry(value=bytes_from(document, "value"), version=int(document["version"]))

    def get(self, key: str, default: str | None = None) -> str | None:
        """The value as text, or `default` if there is none."""
        entry = self.entry(key)
        return default if entry is None else entry.text

    def get_bytes(self, key: str) -> bytes | None:
        """The value as bytes, or None if there is none."""
        entry = self.entry(key)
        return None if entry is None else entry.value

    def get_json(self, key: str, default: Any = None) -> Any:
        """The value that `put_json` wrote, or `default` if there is none."""
        entry = self.entry(key)
        return default if entry is None else entry.json()

    def put(self, key: str, value: Value) -> int:
        """Write a text or bytes, and return the new version.

        Raises:
            QuotaExceeded: It would exceed the bytes that the grant allows.
        """
        return cast("int", self._host.call("storage", "put", key, *carried(value)))

    def put_json(self, key: str, value: object) -> int:
        """Write a value as JSON (a dataclass becomes an object), and return the new version."""
        return self.put(key, json.dumps(encode(value), ensure_ascii=False, allow_nan=False))

    def compare_and_set(self, key: str, expected: int | None, value: Value) -> int:
        """Write only if the key has the version `expected`, or, for None, if it is absent.

        Raises:
            Conflict: Another run wrote it first.
        """
        return cast("int", self._host.call("storage", "compare-and-set", key, expected, *carried(value)))

    def update_json(self, key: str, change: Callable[[Any], object], default: Any = None) -> Any:
        """Read, change and write a JSON value without losing a concurrent write; return the new value.

        Args:
            key: The key of the value.
            change: Receives the value and returns the new one. It may be called again if another run wrote first.
            default: The value for `change` if the key is absent.

        Raises:
            Conflict: Others kept writing first.
        """
        for attempt in range(ATTEMPTS):
            entry = self.entry(key)
            changed = encode(change(default if entry is None else entry.json()))
            try:
                text = json.dumps(changed, ensure_ascii=False, allow_nan=False)
                self.compare_and_set(key, None if entry is None else entry.version, text)
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            return changed
        raise AssertionError("unreachable")

    def delete(self, key: str) -> bool:
        """Remove a key, and return whether it existed."""
        return bool(self._host.call("storage", "delete", key))

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that start with `prefix`, in order, fetched page by page."""
        after: str | None = None
        while True:
            page = cast("list[str]", self._host.call("storage", "keys", prefix, after, PAGE))
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1]
