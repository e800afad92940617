"""Storage in memory, with the host's rules."""

from __future__ import annotations

import base64
import json
import unicodedata
from typing import cast

from llmasos_sdk.errors import Conflict, Invalid, NotFound, QuotaExceeded
from llmasos_sdk.host import JsonValue

MAX_KEY_BYTES = 512
MAX_PAGE = 1000


class MemoryStorage:
    """Stores values by key, with versions, byte limits and compare-and-set.

    Args:
        values: The initial content: texts or bytes by key.
        max_bytes: The limit of all values together, as the permission's `max_bytes`.
    """

    def __init__(self, values: dict[str, str | bytes] | None = None, *, max_bytes: int = 1 << 20) -> None:
        self.max_bytes = max_bytes
        self._values: dict[str, tuple[bytes, bool, int]] = {}
        self._deleted_version = 0
        for key, value in (values or {}).items():
            self._write(key, value.encode() if isinstance(value, str) else value, is_base64=isinstance(value, bytes))

    @property
    def values(self) -> dict[str, bytes]:
        """A copy of the stored values."""
        return {key: value for key, (value, _, _) in self._values.items()}

    @property
    def used_bytes(self) -> int:
        """The size of all keys and values."""
        return sum(len(key.encode()) + len(value) for key, (value, _, _) in self._values.items())

    def call(self, function: str, *arguments: JsonValue) -> JsonValue:
        """Call a function of the contract's interface `storage`."""
        match function, arguments:
            case "get", (str(key),):
                return self._get(key)
            case "put", (str(key), str(value), bool(is_base64)):
                return self._write(key, _decoded(value, is_base64), is_base64=is_base64)
            case "compare-and-set", (str(key), expected, str(value), bool(is_base64)):
                return self._compare_and_set(key, cast("int | None", expected), value, is_base64)
            case "delete", (str(key),):
                return self._delete(key)
            case "keys", (str(prefix), after, int(limit)):
                return cast("JsonValue", self._keys(prefix, cast("str | None", after), limit))
            case _:
                raise NotFound(f"storage has no function {function} with these arguments")

    def _get(self, key: str) -> str | None:
        _check_key(key)
        if key not in self._values:
            return None
        value, is_base64, version = self._values[key]
        text = base64.b64encode(value).decode() if is_base64 else value.decode()
        return json.dumps({"value": text, "base64": is_base64, "version": version}, ensure_ascii=False)

    def _compare_and_set(self, key: str, expected: int | None, value: str, is_base64: bool) -> int:
        _check_key(key)
        content = _decoded(value, is_base64)
        there = self._values[key][2] if key in self._values else None
        if there != expected:
            raise Conflict(f"{key} has version {there}, not {expected}")
        return self._write(key, content, is_base64=is_base64)

    def _delete(self, key: str) -> bool:
        _check_key(key)
        there = self._values.pop(key, None)
        if there is not None:
            self._deleted_version = max(self._deleted_version, there[2])
        return there is not None

    def _write(self, key: str, value: bytes, *, is_base64: bool) -> int:
        _check_key(key)
        # Versions never repeat, also across a delete.
        before, _, version = self._values.get(key, (b"", False, self._deleted_version))
        others = self.used_bytes - (len(key.encode()) + len(before) if key in self._values else 0)
        if others + len(key.encode()) + len(value) > self.max_bytes:
            raise QuotaExceeded(f"storage holds at most {self.max_bytes} bytes; delete something first")
        self._values[key] = (value, is_base64, version + 1)
        return version + 1

    def _keys(self, prefix: str, after: str | None, limit: int) -> list[str]:
        if not 1 <= limit <= MAX_PAGE:
            raise Invalid(f"limit is from 1 to {MAX_PAGE}")
        _decoded(prefix, False)
        _decoded(after or "", False)
        found = sorted(key for key in self._values if key.startswith(prefix) and (after is None or key > after))
        return found[:limit]


def _check_key(key: str) -> None:
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in key):
        raise Invalid("a key has no control characters")
    if not 1 <= len(key.encode()) <= MAX_KEY_BYTES:
        raise Invalid(f"a key has from 1 to {MAX_KEY_BYTES} bytes")


def _decoded(value: str, is_base64: bool) -> bytes:
    if not is_base64:
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
            raise Invalid("a text has no NUL characters and no halves of surrogate pairs: store bytes")
        return value.encode()
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise Invalid("the value is not base64") from error
