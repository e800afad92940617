"""`/`: the apps that are installed, and for a first visit what to do."""

from __future__ import annotations

from starlette.responses import Response

from llmasos.bundles.manifest import Manifest
from llmasos.installs import repository
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.cards import card
from llmasos_server.web.page import Shown, pages

router = pages()


@router.get("/")
async def home(view: Shown) -> Response:
    """The launcher."""
    view.require(TokenScope.READ)
    principal = view.principal
    with host_of(view.request).database.read() as session:
        apps = [
            card(Manifest.model_validate(release.manifest), view.locale)
            for _installation, release in repository.all_current(session, principal.workspace)
        ]
    return view.render("home.html.jinja", apps=apps)
