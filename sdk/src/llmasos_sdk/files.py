"""Files that actions take and return: in JSON, `{"name", "media_type", "base64"}`."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from llmasos_sdk.errors import SchemaMismatch
from llmasos_sdk.host import JsonValue
from llmasos_sdk.messages import message as _

# In base64 these are 1,000,000 characters; everything that an action takes or returns is limited to 1 MiB.
MAX_FILE_BYTES: Final = 750_000
MAX_NAME: Final = 255
BYTES: Final = "application/octet-stream"
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}")


@dataclass(frozen=True, slots=True)
class File:
    """A file that an action takes or returns, of at most `MAX_FILE_BYTES`.

    Args:
        name: Such as `report.pdf`, without a folder.
        content: Its bytes.
        media_type: Such as `application/pdf`.
    """

    name: str
    content: bytes
    media_type: str = BYTES

    @property
    def text(self) -> str:
        """The content as UTF-8 text.

        Raises:
            UnicodeDecodeError: It is none.
        """
        return self.content.decode("utf-8-sig")

    def as_json(self) -> dict[str, JsonValue]:
        """The file as JSON.

        Raises:
            SchemaMismatch: It is too large.
        """
        _check_size(len(self.content), self.name)
        encoded = base64.b64encode(self.content).decode()
        return {"name": plain_name(self.name), "media_type": self.media_type, "base64": encoded}

    @classmethod
    def from_json(cls, value: JsonValue, place: str) -> File:
        """The file that JSON holds; of a name, the part behind the last folder.

        Raises:
            SchemaMismatch: It is no file, or too large.
        """
        given: dict[str, JsonValue] = value if isinstance(value, dict) else {}
        document = {key: text for key, text in given.items() if isinstance(text, str)}
        if document.keys() != {"name", "media_type", "base64"} or len(document) != len(given):
            raise _mismatch(place, _("a file is an object with the texts name, media_type and base64"))
        if not _MEDIA_TYPE.fullmatch(document["media_type"]):
            raise _mismatch(place, _("the media type of a file is written as in application/pdf"))
        try:
            content = base64.b64decode(document["base64"], validate=True)
        except (binascii.Error, ValueError):
            raise _mismatch(place, _("the content of a file is base64")) from None
        _check_size(len(content), place)
        return cls(plain_name(document["name"]), content, document["media_type"])


def plain_name(name: str) -> str:
    """A name without folders, and without characters that are not printed."""
    last = "".join(each for each in name.replace("\\", "/").rpartition("/")[2] if each.isprintable())
    return last[:MAX_NAME].strip(". ") or "file"


def _check_size(size: int, place: str) -> None:
    if size > MAX_FILE_BYTES:
        raise _mismatch(place, _("the file has {size:,} bytes; {most:,} are the most", size=size, most=MAX_FILE_BYTES))


def _mismatch(place: str, error: str) -> SchemaMismatch:
    return SchemaMismatch(_("{place}: {error}", place=place or _("the value"), error=error))


def file_schema() -> dict[str, JsonValue]:
    """The JSON Schema of a file."""
    most = {"name": MAX_NAME, "media_type": 127, "base64": (MAX_FILE_BYTES + 2) // 3 * 4}
    return {
        "type": "object",
        "x-ui": "file",
        "properties": {name: {"type": "string", "maxLength": length} for name, length in most.items()},
        "required": [*most],
        "additionalProperties": False,
    }
