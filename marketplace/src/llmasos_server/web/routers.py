"""Every router of the pages, in one list for the composition root."""

from __future__ import annotations

from llmasos_server.web import (
    activity,
    admin,
    admin_limits,
    admin_members,
    admin_models,
    app_settings,
    assets,
    cards,
    home,
    installing,
    own_tokens,
    pwa,
    running,
    security,
    settings,
    signing_in,
    store,
    usage,
)

ROUTERS = (
    assets.router,
    pwa.router,
    signing_in.router,
    home.router,
    cards.router,
    store.router,
    running.router,
    activity.router,
    settings.router,
    security.router,
    own_tokens.router,
    usage.router,
    installing.router,
    app_settings.router,
    admin.router,
    admin_members.router,
    admin_models.router,
    admin_limits.router,
)
