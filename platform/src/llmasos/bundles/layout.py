"""The contents of a bundle and its limits, shared by the writer and the reader."""

from __future__ import annotations

import re
from typing import Final

MANIFEST: Final = "llmapp.toml"
ACTIONS: Final = "actions.json"
COMPONENT: Final = "app.wasm"
LOCK: Final = "requirements.txt"
"""The hash-pinned lock beside a wheel."""
README: Final = "README.md"
SUFFIX: Final = ".llmapp"

WHEEL: Final = re.compile(r"[A-Za-z0-9_.]+-[A-Za-z0-9_.!+]+(-[A-Za-z0-9_.]+){3,4}\.whl")
# A bundle also holds its icon, at the path that the manifest names, and no other file.
TEXTS: Final = re.compile(r"README(\.[a-z]{2})?\.md|CHANGELOG\.md|(LICENSE|NOTICE)(\.txt|\.md)?")

MAX_ENTRIES: Final = 512
MAX_UNPACKED_BYTES: Final = 64 << 20
# Real components deflate to between a third and a tenth; 100 leaves room for tables of zeros. A small file may have
# any ratio: below a MiB it is harmless.
MAX_RATIO: Final = 100
RATIO_FREE_BYTES: Final = 1 << 20
# Stored without compression, with a header of at most 512 bytes twice for each entry.
MAX_BUNDLE_BYTES: Final = MAX_UNPACKED_BYTES + MAX_ENTRIES * 1024
MAX_NAME_BYTES: Final = 200
MAX_ACTIONS_BYTES: Final = 512 << 10
MAX_TEXT_BYTES: Final = 1 << 20
MAX_ICON_BYTES: Final = 256 << 10
