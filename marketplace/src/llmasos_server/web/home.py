"""`/`: the apps that are installed, and for a first visit what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from zlib import crc32

from starlette.responses import Response

from llmasos.bundles.manifest import Manifest
from llmasos.installs import repository
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.page import Shown, pages

router = pages()

HUES: Final = 8


@dataclass(frozen=True, slots=True)
class AppCard:
    """An app as a list of apps shows it."""

    id: str
    name: str
    summary: str

    @property
    def hue(self) -> int:
        """The colour of an app without an icon: always the same one."""
        return crc32(self.id.encode()) % HUES

    @property
    def initial(self) -> str:
        """What stands for its icon."""
        return self.name[:1].upper()


@router.get("/")
async def home(view: Shown) -> Response:
    """The launcher."""
    view.require(TokenScope.READ)
    principal = view.principal
    with host_of(view.request).database.read() as session:
        apps = [
            card(installation.app_id, Manifest.model_validate(release.manifest), view.locale)
            for installation, release in repository.all_current(session, principal.workspace)
        ]
    return view.render("home.html.jinja", apps=apps)


def card(app_id: str, manifest: Manifest, locale: str) -> AppCard:
    """An app's card, in a language."""
    return AppCard(app_id, manifest.name.in_locale(locale), manifest.summary.in_locale(locale))
