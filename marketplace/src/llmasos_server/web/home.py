"""`/`: the apps that are installed, the last used first; recent runs; and for a first visit what to do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from llmasos.bundles.manifest import Manifest
from llmasos.installs import repository
from llmasos.invocations import records
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.activity import RunLine, run_line
from llmasos_server.web.cards import AppCard, card
from llmasos_server.web.page import Shown, View, pages

router = pages()

RECENT: Final = 5
# Among so many runs, the order in which apps were last used is looked up; the others follow by name.
LOOKED_AT: Final = 200


@dataclass(frozen=True, slots=True)
class Launcher:
    """What Home shows."""

    apps: list[AppCard]
    recent: list[RunLine]


@router.get("/")
async def home(view: Shown) -> Response:
    """The launcher."""
    view.require(TokenScope.READ)
    launcher = await asyncio.to_thread(_launcher, view)
    return view.render("home.html.jinja", apps=launcher.apps, recent=launcher.recent)


def _launcher(view: View) -> Launcher:
    principal = view.principal
    with host_of(view.request).database.read() as session:
        cards = [
            card(Manifest.model_validate(release.manifest), view.locale)
            for _installation, release in repository.all_current(session, principal.workspace)
        ]
        runs = records.listing(session, principal.workspace, principal.user, LOOKED_AT)
        names: dict[str, str] = {each.id: each.name for each in cards}
        recent = [run_line(view, row, names) for row in runs[:RECENT]]
        used = list(dict.fromkeys(row.app_id for row in runs))
    places = {app_id: place for place, app_id in enumerate(used)}
    cards.sort(key=lambda each: (places.get(each.id, len(places)), each.name))
    return Launcher(cards, recent)
