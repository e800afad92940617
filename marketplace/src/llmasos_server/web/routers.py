"""Every router of the pages, in one list for the composition root."""

from __future__ import annotations

from llmasos_server.web import assets, cards, home, own_tokens, security, settings, signing_in, store, usage

ROUTERS = (
    assets.router,
    signing_in.router,
    home.router,
    cards.router,
    store.router,
    settings.router,
    security.router,
    own_tokens.router,
    usage.router,
)
