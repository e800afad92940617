"""An app as lists of apps show it, and the pictures of apps."""

from __future__ import annotations

import asyncio
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote
from zlib import crc32

from fastapi import Request
from starlette.responses import Response

from llmasos.bundles.layout import MAX_ICON_BYTES
from llmasos.bundles.manifest import Manifest
from llmasos.errors import NotFound
from llmasos.i18n import Message, _, render
from llmasos_marketplace.catalog.service import Catalog
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.page import Shown, pages

router = pages()

HUES: Final = 8
CAPABILITIES: Final[dict[str, Message]] = {
    "model": _("Asks language models"),
    "storage": _("Remembers data for you"),
    "http": _("Reaches other servers"),
    "secrets": _("Uses your secrets"),
    "apps": _("Runs other apps"),
}
# Those of the apps that come with LLMasOS; another is shown as its author wrote it.
CATEGORIES: Final[dict[str, Message]] = {
    "customer-service": _("Customer service"),
    "data": _("Data"),
    "development": _("Development"),
    "documents": _("Documents"),
    "education": _("Education"),
    "entertainment": _("Entertainment"),
    "languages": _("Languages"),
    "productivity": _("Productivity"),
    "writing": _("Writing"),
}
_TYPES: Final = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
}
# An author draws it: even opened by itself, it runs no script, loads nothing and has no origin.
_HEADERS: Final = {
    "content-security-policy": "sandbox; default-src 'none'",
    "cache-control": "private, max-age=31536000, immutable",
}


@dataclass(frozen=True, slots=True)
class AppCard:
    """An app, in the reader's language."""

    id: str
    name: str
    summary: str
    icon: str | None
    """The address of its picture."""
    capabilities: tuple[tuple[str, str], ...] = ()
    """What it may touch: the symbol, and its words."""
    installs: int = 0

    @property
    def hue(self) -> int:
        """The colour of an app without an icon: always the same one."""
        return crc32(self.id.encode()) % HUES

    @property
    def initial(self) -> str:
        """What stands for its icon."""
        return self.name[:1].upper()

    @property
    def publisher(self) -> str:
        """Whose it is."""
        return self.id.partition("/")[0]


def card(manifest: Manifest, locale: str, installs: int = 0) -> AppCard:
    """The card of a release of an app."""
    icon = None
    if manifest.icon is not None and Path(manifest.icon).suffix.lower() in _TYPES:
        icon = f"/icons/{manifest.id}/{quote(manifest.version)}"
    touched = [each.capability for each in manifest.permissions]
    return AppCard(
        manifest.id,
        manifest.name.in_locale(locale),
        manifest.summary.in_locale(locale),
        icon,
        tuple((name, render(text, locale)) for name, text in CAPABILITIES.items() if name in touched),
        installs,
    )


def category_text(category: str, locale: str) -> str:
    """A category, in the reader's language."""
    known = CATEGORIES.get(category)
    return category if known is None else render(known, locale)


@router.get("/icons/{publisher}/{name}/{version}")
async def icon(view: Shown, publisher: str, name: str, version: str) -> Response:
    """The picture of a release, which never changes."""
    view.require(TokenScope.READ)
    content, media_type = await asyncio.to_thread(_icon, catalog_of(view.request), f"{publisher}/{name}", version)
    return Response(content, media_type=media_type, headers=_HEADERS)


def catalog_of(request: Request) -> Catalog:
    """The server's catalog."""
    return cast("Catalog", request.app.state.catalog)


def _icon(catalog: Catalog, app_id: str, version: str) -> tuple[bytes, str]:
    release = catalog.release(app_id, version)
    path = Manifest.model_validate(release.manifest).icon
    media_type = _TYPES.get(Path(path).suffix.lower()) if path else None
    if path is None or media_type is None:
        raise NotFound
    return bundled(catalog.bundle(release.digest), path, MAX_ICON_BYTES), media_type


@lru_cache(maxsize=64)
def bundled(bundle: Path, name: str, most_bytes: int) -> bytes:
    """One file of a bundle in the store, whose name is its digest.

    Raises:
        NotFound: The bundle does not hold it, or it is larger than such a file may be.
    """
    try:
        with zipfile.ZipFile(bundle) as archive, archive.open(name) as file:
            content = file.read(most_bytes + 1)
    except (KeyError, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        raise NotFound from None
    if len(content) > most_bytes:
        raise NotFound
    return content
