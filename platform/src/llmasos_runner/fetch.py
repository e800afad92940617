"""Fetches the wheels that a lock pins: `launch.py LIMITS python -I -S fetch.py`, the task on its standard input.

It prints nothing if all of them are there. Else it ends with exit code 1, and prints `protocol.BuildFailure` as JSON.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llmasos_runner.protocol import FetchTask, WheelSource

_CHUNK_BYTES: Final = 1 << 16
_SILENCE_SECONDS: Final = 60.0
_ATTEMPTS: Final = 3
_SCHEMES: Final = frozenset({"https", "http", "file"})
_MAX_SAID_CHARACTERS: Final = 200


class _Refused(Exception):
    """A wheel is not to be had."""


def main() -> None:
    """Fetch the files that standard input lists."""
    task: FetchTask = json.load(sys.stdin)
    left = task["max_bytes"]
    for wheel in task["wheels"]:
        try:
            left -= _fetch(wheel, Path(task["folder"], wheel["sha256"]), left)
        except _Refused as refused:
            reason, said = refused.args
            sys.stdout.write(json.dumps({"reason": reason, "name": wheel["name"], "said": said}) + "\n")
            sys.stdout.flush()
            os._exit(1)


def _fetch(wheel: WheelSource, place: Path, max_bytes: int) -> int:
    """Fetch one wheel, and return its size."""
    if urllib.parse.urlsplit(wheel["url"]).scheme not in _SCHEMES:
        raise _Refused("network", "its address is not https, http or file")
    said = ""
    for __ in range(_ATTEMPTS):
        try:
            digest, size = _download(wheel["url"], place, max_bytes)
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = f"{type(error).__name__}: {error}"[:_MAX_SAID_CHARACTERS]
            continue
        if digest != wheel["sha256"]:
            raise _Refused("hash", f"it has sha256 {digest}")
        return size
    raise _Refused("network", said)


def _download(url: str, place: Path, max_bytes: int) -> tuple[str, int]:
    hashed, size = hashlib.sha256(), 0
    with _open(url) as response, place.open("wb") as file:
        while chunk := response.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > max_bytes:
                raise _Refused("size", "")
            hashed.update(chunk)
            file.write(chunk)
    return hashed.hexdigest(), size


def _open(url: str) -> IO[bytes]:
    address = urllib.parse.urlsplit(url)
    if address.scheme == "file":
        return Path(urllib.parse.unquote(address.path)).open("rb")
    opener = urllib.request.OpenerDirector()
    # No other scheme, not even by a redirect.
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler, urllib.request.HTTPErrorProcessor, urllib.request.HTTPDefaultErrorHandler,
        urllib.request.UnknownHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    opened: IO[bytes] = opener.open(url, timeout=_SILENCE_SECONDS)
    return opened


if __name__ == "__main__":
    main()
